//! The library under another name: `crate = path` tells the derive where it is.

pub use groups;

/// Writes a struct for crates that do not depend on the library themselves.
#[macro_export]
macro_rules! company {
    ($vis:vis $name:ident, $id:ty) => {
        /// A company.
        #[derive($crate::groups::MixpanelGroup)]
        #[mixpanel(group_key = "company", crate = $crate::groups)]
        $vis struct $name {
            /// Which.
            #[mixpanel(group_id)]
            $vis id: $id,
            /// Its name.
            $vis name: String,
        }
    };
}

#[cfg(test)]
mod tests {
    use groups::MixpanelGroup;

    fn is_empty(text: &str) -> bool {
        text.is_empty()
    }

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", crate = groups, unset_none)]
    struct Company<'a, T> {
        #[mixpanel(group_id(prefix = "c"))]
        id: T,
        #[mixpanel(company_id)]
        parent: u8,
        #[mixpanel(skip_if = "is_empty")]
        name: &'a str,
        #[mixpanel(union)]
        tags: Vec<T>,
    }

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "team", crate = "::groups")]
    struct Team {
        #[mixpanel(group_id)]
        id: u8,
        name: u8,
    }

    company!(Third, u8);

    #[test]
    fn is_found_under_its_other_name() {
        let company = Company {
            id: 1,
            parent: 2,
            name: "Acme",
            tags: vec![3],
        };
        let all: Vec<_> = company
            .updates()
            .map(|u| u.to_json().ok().flatten())
            .collect();
        let group = r#"{"$group_key":"company","$group_id":"c1","$company_id":"2""#;
        assert_eq!(
            all,
            [
                Some(format!(r#"{group},"$set":{{"name":"Acme"}}}}"#)),
                Some(format!(r#"{group},"$union":{{"tags":[3]}}}}"#)),
            ]
        );
        assert_eq!(Team { id: 1, name: 2 }.updates().count(), 1);
        let name = String::new();
        assert_eq!(Third { id: 1, name }.updates().count(), 1);
    }
}

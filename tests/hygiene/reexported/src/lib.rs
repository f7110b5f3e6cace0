//! The library as another crate's re-export: `crate = path` tells the derive where it is.

use hygiene_renamed::groups;

/// By path.
#[derive(groups::MixpanelGroup)]
#[mixpanel(group_key = "company", crate = hygiene_renamed::groups)]
pub struct Company<T> {
    /// Which.
    #[mixpanel(group_id)]
    pub id: T,
    /// Its name.
    pub name: String,
}

/// In a module that sees no more than its parent.
pub mod nested {
    /// By a path that starts here.
    #[derive(super::groups::MixpanelGroup)]
    #[mixpanel(group_key = "company", crate = super::groups)]
    pub struct Company {
        /// Which.
        #[mixpanel(group_id)]
        pub id: u8,
    }

    /// By a path that starts at the root, in quotes as serde wants it.
    #[derive(crate::groups::MixpanelGroup)]
    #[mixpanel(group_key = "team", crate = "crate::groups")]
    pub struct Team {
        /// Which.
        #[mixpanel(group_id)]
        pub id: u8,
    }
}

hygiene_renamed::company!(pub Written, u8);

/// With names that are reserved since edition 2024, in which the derive is written.
pub mod reserved {
    fn gen(text: &str) -> bool {
        text.is_empty()
    }

    /// A property, and a function.
    #[derive(super::groups::MixpanelGroup)]
    #[mixpanel(group_key = "company", crate = super::groups)]
    #[expect(non_camel_case_types, reason = "the name is the test")]
    pub struct gen {
        /// Which.
        #[mixpanel(group_id)]
        pub id: u8,
        /// What.
        #[mixpanel(skip_if = "gen")]
        pub gen: &'static str,
    }

    /// An id.
    #[derive(super::groups::MixpanelGroup)]
    #[mixpanel(group_key = "team", crate = super::groups)]
    pub struct Team<'gen> {
        /// Which.
        #[mixpanel(group_id)]
        pub gen: &'gen str,
    }

    /// A field that is copied.
    #[derive(super::groups::MixpanelGroup)]
    #[mixpanel(group_key = "packed", crate = super::groups)]
    #[repr(C, packed)]
    pub struct Packed {
        /// Which.
        #[mixpanel(group_id)]
        pub id: u8,
        /// Of which.
        #[mixpanel(company_id)]
        pub gen: u16,
    }
}

#[cfg(test)]
mod tests {
    use super::groups::{Group, MixpanelGroup};

    #[test]
    fn is_found_where_it_is_re_exported() {
        let name = || "Acme".to_owned();
        let company = super::Company {
            id: "acme",
            name: name(),
        };
        assert_eq!(
            company.set().to_json().ok().flatten().as_deref(),
            Some(r#"{"$group_key":"company","$group_id":"acme","$set":{"name":"Acme"}}"#)
        );
        let written = super::Written {
            id: 1,
            name: name(),
        };
        assert_eq!(
            written.set().to_json().ok().flatten().as_deref(),
            Some(r#"{"$group_key":"company","$group_id":"1","$set":{"name":"Acme"}}"#)
        );
        assert_eq!(
            super::nested::Company { id: 1 }.group(),
            Group::new("company", 1)
        );
        assert_eq!(super::nested::Team { id: 1 }.group(), Group::new("team", 1));
    }

    #[test]
    fn names_may_be_reserved_in_later_editions() {
        let company = super::reserved::gen { id: 1, gen: "X" };
        assert_eq!(
            company.set().to_json().ok().flatten().as_deref(),
            Some(r#"{"$group_key":"company","$group_id":"1","$set":{"gen":"X"}}"#)
        );
        let team = super::reserved::Team { gen: "red" };
        assert_eq!(team.group(), Group::new("team", "red"));
        let packed = super::reserved::Packed { id: 1, gen: 2 };
        assert_eq!(packed.group(), Group::new("packed", 1).in_company(2));
    }
}

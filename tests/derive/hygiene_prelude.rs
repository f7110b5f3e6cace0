//! The generated code names nothing that the prelude would have to bring, nor any trait that would
//! have to be in scope.
#![allow(
    unreachable_pub,
    clippy::pedantic,
    reason = "this is about the generated code"
)]

mod bare {
    #![no_implicit_prelude]

    fn text<S: ::serde::Serializer>(
        value: &u8,
        serializer: S,
    ) -> ::std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    fn is_zero(value: &u8) -> bool {
        *value == 0
    }

    fn id(value: &u8) -> ::std::string::String {
        ::std::string::ToString::to_string(value)
    }

    #[::std::prelude::v1::derive(::mixpanel_groups::MixpanelGroup)]
    #[mixpanel(group_key = "company", unset_none)]
    pub struct Company<'a, T> {
        #[mixpanel(group_id(prefix = "c", with = "id"))]
        pub id: u8,
        #[mixpanel(company_id)]
        pub company_id: &'a str,
        #[mixpanel(with = "text", skip_if = "is_zero")]
        pub with: u8,
        #[mixpanel(set_once)]
        pub once: T,
        #[mixpanel(union, skip_if = "<[u8]>::is_empty")]
        pub list: &'a [u8],
        #[mixpanel(flatten)]
        pub more: &'a ::std::collections::BTreeMap<&'a str, u8>,
        #[mixpanel(skip)]
        pub _skipped: (),
    }

    #[::std::prelude::v1::derive(::mixpanel_groups::MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    pub struct Bare {
        #[mixpanel(group_id)]
        pub id: u8,
    }
}

#[test]
fn works_without_the_prelude() {
    use mixpanel_groups::MixpanelGroup;

    let company = bare::Company {
        id: 1,
        company_id: "acme",
        with: 2,
        once: 3,
        list: &[4],
        more: &[("more", 5)].into(),
        _skipped: (),
    };
    let all: Vec<String> = company
        .updates()
        .map(|u| u.to_json().unwrap().unwrap())
        .collect();
    let group = r#"{"$group_key":"company","$group_id":"c1","$company_id":"acme""#;
    assert_eq!(
        all,
        [
            format!(r#"{group},"$set":{{"with":"2","more":5}}}}"#),
            format!(r#"{group},"$set_once":{{"once":3}}}}"#),
            format!(r#"{group},"$union":{{"list":[4]}}}}"#),
        ]
    );
    let _ = bare::Bare { id: 1 }.group();
}

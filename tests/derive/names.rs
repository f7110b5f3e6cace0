//! The names of properties.
#![allow(non_snake_case, reason = "names of every kind")]

use mixpanel_groups::{MixpanelGroup, Property};
use serde::Serialize;
use serde_json::{Value, json};

fn names<T: MixpanelGroup>() -> Vec<&'static str> {
    T::PROPERTIES.iter().map(|property| property.name).collect()
}

macro_rules! same_as_serde {
    ($($rule:literal)*) => {$({
        #[derive(Default, Serialize, MixpanelGroup)]
        #[serde(rename_all = $rule)]
        #[mixpanel(group_key = "company", rename_all = $rule)]
        struct Company {
            #[mixpanel(group_id)]
            #[serde(skip)]
            id: u8,
            seats: u8,
            founding_year: u8,
            r#type: u8,
            _leading: u8,
            trailing_: u8,
            two__underscores: u8,
            MixedCase: u8,
            line_2: u8,
            größe_äußerst: u8,
            #[mixpanel(rename = "As It IS")]
            #[serde(rename = "As It IS")]
            renamed: u8,
        }
        let Ok(Value::Object(serde)) = serde_json::to_value(Company::default()) else {
            panic!("a struct is an object")
        };
        let mut ours = names::<Company>();
        ours.sort_unstable();
        assert_eq!(ours, serde.keys().collect::<Vec<_>>(), $rule);
    })*};
}

#[test]
fn every_rule_is_that_of_serde() {
    same_as_serde!(
        "lowercase" "UPPERCASE" "PascalCase" "camelCase" "snake_case" "SCREAMING_SNAKE_CASE"
        "kebab-case" "SCREAMING-KEBAB-CASE"
    );
}

/// serde's derive panics here.
#[test]
fn camel_case_has_no_fear_of_other_letters() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", rename_all = "camelCase")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        école_primaire: u8,
        été: u8,
        名: u8,
    }
    assert_eq!(names::<Company>(), ["écolePrimaire", "été", "名"]);
    let company = Company {
        id: 1,
        école_primaire: 2,
        été: 3,
        名: 4,
    };
    assert_eq!(
        company.set().to_json().unwrap().unwrap(),
        r#"{"$group_key":"company","$group_id":"1","$set":{"écolePrimaire":2,"été":3,"名":4}}"#
    );
}

#[test]
fn any_text_is_a_name() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "the \"key\"\n")]
    struct Company {
        #[mixpanel(group_id(prefix = "\"\\"))]
        id: &'static str,
        #[mixpanel(rename = "quote \" backslash \\ slash /")]
        a: u8,
        #[mixpanel(rename = "\u{0}\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}")]
        b: u8,
        #[mixpanel(rename = "😀 \u{2028}\u{2029} é")]
        c: u8,
        #[mixpanel(rename = " ")]
        d: u8,
        #[mixpanel(rename = "{}")]
        e: u8,
        #[mixpanel(rename = "$name")]
        f: u8,
    }
    let company = Company {
        id: "\u{1}",
        a: 1,
        b: 2,
        c: 3,
        d: 4,
        e: 5,
        f: 6,
    };
    let json = company.set().to_json().unwrap().unwrap();
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        value,
        json!({
            "$group_key": "the \"key\"\n",
            "$group_id": "\"\\\u{1}",
            "$set": {
                "quote \" backslash \\ slash /": 1,
                "\u{0}\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}": 2,
                "😀 \u{2028}\u{2029} é": 3,
                " ": 4,
                "{}": 5,
                "$name": 6,
            },
        })
    );
    for Property { name, .. } in Company::PROPERTIES {
        let escaped = serde_json::to_string(name).unwrap();
        assert!(json.contains(&escaped), "{escaped} as serde_json has it");
    }
}

#[test]
fn a_name_may_have_255_characters() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(
            rename = "ééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé"
        )]
        long: u8,
    }
    assert_eq!(names::<Company>()[0].chars().count(), 255);
}

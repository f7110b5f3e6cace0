//! `#[mixpanel(serde)]`: what `#[serde(…)]` says counts where `#[mixpanel(…)]` says nothing.
#![allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's functions take references"
)]

use std::collections::BTreeMap;

use mixpanel_groups::MixpanelGroup;
use serde::{Deserialize, Serialize};
use serde_json::json;

use common::{all, says};

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &u8, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
        let text = <&str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    zip_code: u32,
    country: Option<String>,
}

fn address() -> Address {
    Address {
        zip_code: 94105,
        country: None,
    }
}

#[test]
fn is_read_as_serde_reads_it() {
    #[derive(Serialize, Deserialize, MixpanelGroup)]
    #[mixpanel(group_key = "company", serde)]
    #[serde(rename_all = "camelCase", default, deny_unknown_fields)]
    struct Company {
        #[mixpanel(group_id)]
        #[serde(rename = "companyId", skip)]
        id: u8,
        founding_year: u16,
        #[serde(rename = "Seats")]
        seats: u8,
        #[serde(rename(serialize = "Out", deserialize = "In"), alias = "Other")]
        out: u8,
        #[serde(rename(deserialize = "Inwards"))]
        only_in: u8,
        #[serde(skip)]
        skipped: u8,
        #[serde(skip_serializing)]
        not_out: u8,
        #[serde(skip_deserializing)]
        not_in: u8,
        #[serde(skip_serializing_if = "is_zero", default = "Default::default")]
        zero: u8,
        #[serde(with = "as_text")]
        with: u8,
        #[serde(serialize_with = "as_text::serialize")]
        serialize_with: u8,
        #[serde(flatten)]
        address: Address,
        #[serde(flatten, skip_serializing_if = "BTreeMap::is_empty")]
        more: BTreeMap<String, u8>,
    }

    impl Default for Company {
        fn default() -> Self {
            Self {
                id: 1,
                founding_year: 2,
                seats: 3,
                out: 4,
                only_in: 5,
                skipped: 6,
                not_out: 7,
                not_in: 8,
                zero: 0,
                with: 9,
                serialize_with: 10,
                address: address(),
                more: BTreeMap::new(),
            }
        }
    }

    let company = Company::default();
    let mut as_serde = serde_json::to_value(&company).unwrap();
    as_serde.as_object_mut().unwrap().remove("country"); // `None` is left out, not `null`
    assert_eq!(says(&company.set()), as_serde);
    assert_eq!(
        as_serde,
        json!({
            "foundingYear": 2, "Seats": 3, "Out": 4, "onlyIn": 5, "notIn": 8, "with": "9",
            "serializeWith": "10", "zipCode": 94105,
        })
    );
}

#[test]
fn rename_all_may_be_for_one_direction() {
    #[derive(Serialize, MixpanelGroup)]
    #[mixpanel(group_key = "company", serde)]
    #[serde(rename_all(serialize = "kebab-case", deserialize = "UPPERCASE"))]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        founding_year: u16,
    }
    let company = Company {
        id: 1,
        founding_year: 2,
    };
    assert_eq!(says(&company.set()), json!({"founding-year": 2}));
}

#[test]
fn mixpanel_has_the_last_word() {
    #[derive(Serialize, MixpanelGroup)]
    #[mixpanel(group_key = "company", serde, rename_all = "SCREAMING_SNAKE_CASE")]
    #[serde(rename_all = "camelCase")]
    struct Company {
        #[mixpanel(group_id)]
        #[serde(flatten)]
        id: String,
        founding_year: u16,
        #[mixpanel(rename = "Ours")]
        #[serde(rename = "Theirs")]
        name: u8,
        #[serde(rename = "Only Theirs")]
        theirs: u8,
        #[mixpanel(set_once)]
        #[serde(skip)]
        sent_once: u8,
        #[mixpanel(skip)]
        #[serde(rename = "Gone")]
        gone: u8,
        #[mixpanel(skip_if = "is_zero")]
        #[serde(skip_serializing_if = "never")]
        zero: u8,
        #[mixpanel(with = "as_text::serialize")]
        #[serde(with = "as_hex")]
        number: u8,
        #[mixpanel(rename = "Address")]
        #[serde(flatten)]
        address: Address,
        #[mixpanel(flatten)]
        #[serde(rename = "More")]
        more: BTreeMap<&'static str, u8>,
    }

    fn never(_: &u8) -> bool {
        false
    }

    mod as_hex {
        pub(super) fn serialize<S: serde::Serializer>(n: &u8, to: S) -> Result<S::Ok, S::Error> {
            to.collect_str(&format_args!("{n:x}"))
        }
    }

    let company = Company {
        id: "acme".to_owned(),
        founding_year: 2,
        name: 3,
        theirs: 4,
        sent_once: 5,
        gone: 6,
        zero: 0,
        number: 17,
        address: address(),
        more: [("more", 7)].into(),
    };
    assert_eq!(
        all(&company),
        json!({
            "$set": {
                "FOUNDING_YEAR": 2, "Ours": 3, "Only Theirs": 4, "NUMBER": "17",
                "Address": {"zipCode": 94105, "country": null}, "more": 7,
            },
            "$set_once": {"SENT_ONCE": 5},
        })
    );
}

#[test]
fn without_the_key_serde_is_not_asked() {
    #[derive(Serialize, MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    #[serde(rename_all = "camelCase")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[serde(rename = "Year")]
        founding_year: u16,
        #[serde(skip)]
        skipped: u8,
        #[serde(flatten)]
        address: Address,
    }
    let company = Company {
        id: 1,
        founding_year: 2,
        skipped: 3,
        address: address(),
    };
    assert_eq!(
        says(&company.set()),
        json!({"founding_year": 2, "skipped": 3, "address": {"zipCode": 94105, "country": null}})
    );
}

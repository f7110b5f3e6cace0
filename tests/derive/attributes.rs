//! What a derived struct says, as it goes over the wire.
#![allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "`skip_if` and `with` take references"
)]

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use mixpanel_groups::{Group, GroupId, Id, MixpanelGroup, Operation, Profile, Update};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use common::{all, says};

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Plan {
    Enterprise,
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    /// The name that people know it by.
    name: String,
    plan: Plan,
    industry: Option<String>,
    /// Year of foundation,
    /// as four digits.
    #[mixpanel(set_once)]
    founding_year: u16,
    #[mixpanel(union)]
    integrations: Vec<String>,
    #[mixpanel(rename = "Seats Purchased")]
    seats: u32,
    #[mixpanel(skip)]
    #[expect(dead_code, reason = "never sent, so never read")]
    password_hash: String,
}

fn acme() -> Company {
    Company {
        id: "acme".into(),
        name: "Acme".into(),
        plan: Plan::Enterprise,
        industry: None,
        founding_year: 2009,
        integrations: vec!["slack".into(), "jira".into()],
        seats: 100,
        password_hash: "hunter2".into(),
    }
}

#[test]
fn each_field_goes_to_its_operation() {
    let acme = acme();
    assert_eq!(
        acme.set().to_json().unwrap().unwrap(),
        r#"{"$group_key":"company","$group_id":"acme","$set":{"name":"Acme","plan":"enterprise","Seats Purchased":100}}"#
    );
    assert_eq!(says(&acme.set_once()), json!({"founding_year": 2009}));
    assert_eq!(
        says(&acme.union()),
        json!({"integrations": ["slack", "jira"]})
    );
    assert_eq!(
        says(&acme.unset(["temp_field", "old_data"])),
        json!(["temp_field", "old_data"])
    );
    assert_eq!(
        says(&acme.remove("integrations", "jira")),
        json!({"integrations": "jira"})
    );
    assert_eq!(says(&acme.delete()), json!(""));
    assert_eq!(
        all(&acme),
        json!({
            "$set": {"name": "Acme", "plan": "enterprise", "Seats Purchased": 100},
            "$set_once": {"founding_year": 2009},
            "$union": {"integrations": ["slack", "jira"]},
        })
    );
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn as_text<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn doubled<S: Serializer>(items: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(|item| item * 2))
}

#[test]
fn a_field_is_skipped_where_its_function_says_so() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", unset_none)]
    struct Company {
        #[mixpanel(group_id)]
        id: u64,
        #[mixpanel(skip_if = "is_zero")]
        seats: u32,
        #[mixpanel(skip_if = is_zero, with = "as_text")]
        users: u32,
        #[mixpanel(union, skip_if = "Vec::is_empty", with = doubled)]
        numbers: Vec<u32>,
        #[mixpanel(union, skip_if = "Vec::is_empty")]
        tags: Vec<&'static str>,
    }
    let mut company = Company {
        id: 7,
        seats: 0,
        users: 0,
        numbers: vec![],
        tags: vec![],
    };
    assert_eq!(
        all(&company),
        json!({"$unset": ["seats", "users", "numbers", "tags"]})
    );
    company = Company {
        seats: 3,
        users: 4,
        numbers: vec![1, 2],
        tags: vec!["a"],
        ..company
    };
    assert_eq!(
        all(&company),
        json!({
            "$set": {"seats": 3, "users": "4"},
            "$union": {"numbers": [2, 4], "tags": ["a"]},
        })
    );
}

#[test]
fn json_text_that_is_null_counts_as_null() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", unset_none)]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        raw: Box<RawValue>,
        #[mixpanel(union)]
        list: Vec<Box<RawValue>>,
        #[mixpanel(union, with = "serde::Serialize::serialize")]
        raw_list: Option<Box<RawValue>>,
    }
    let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
    let company = |json: &str| Company {
        id: 1,
        raw: raw(json),
        list: vec![raw(json)],
        raw_list: Some(raw("null")),
    };
    assert_eq!(
        all(&company("null")),
        json!({"$unset": ["raw", "raw_list"]})
    );
    assert_eq!(
        all(&company("1")),
        json!({"$set": {"raw": 1}, "$union": {"list": [1]}, "$unset": ["raw_list"]})
    );
    assert_eq!(company("null").union().to_json().unwrap(), None);
    let changes = company("null").changes_since(&company("1"));
    let changes: Vec<_> = changes.map(|update| says(&update)).collect();
    assert_eq!(changes, [json!(["raw", "list"])]);
}

#[test]
fn none_is_left_out_or_unset() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u64,
        left_out: Option<u8>,
        #[mixpanel(unset_none)]
        unset: Option<u8>,
    }
    let company = Company {
        id: 7,
        left_out: None,
        unset: None,
    };
    assert_eq!(all(&company), json!({"$unset": ["unset"]}));
    let company = Company {
        left_out: Some(1),
        unset: Some(2),
        ..company
    };
    assert_eq!(all(&company), json!({"$set": {"left_out": 1, "unset": 2}}));
}

/// `$union` adds items, and a list without items adds none: what earlier updates added stays.
#[test]
fn an_empty_list_under_union_removes_nothing() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", unset_none)]
    struct Company {
        #[mixpanel(group_id)]
        id: u64,
        #[mixpanel(union)]
        integrations: Vec<&'static str>,
        #[mixpanel(union, with = "Serialize::serialize")]
        regions: Vec<Option<u8>>,
        #[mixpanel(union)]
        tags: Option<BTreeSet<u8>>,
    }
    let company = |integration: Option<&'static str>, region, tags| Company {
        id: 7,
        integrations: integration.into_iter().collect(),
        regions: vec![region],
        tags,
    };
    let mut profile = Profile::default();
    let days = [
        company(Some("slack"), Some(1), Some([2].into())),
        company(Some("jira"), Some(3), Some([4].into())),
        company(None, None, Some([].into())),
    ];
    for day in &days {
        day.updates()
            .for_each(|update| profile.apply(&update).unwrap());
    }
    let both = json!({"integrations": ["slack", "jira"], "regions": [1, 3], "tags": [2, 4]});
    assert_eq!(profile, both);
    assert_eq!(days[2].updates().count(), 0);
    // A list that is `null` is one that the profile is not to have.
    assert_eq!(all(&company(None, None, None)), json!({"$unset": ["tags"]}));
    // What knows that there were items removes them.
    let changes = days[2].changes_since(&days[1]);
    let changes: Vec<_> = changes.map(|update| says(&update)).collect();
    assert_eq!(changes, [json!(["integrations", "regions", "tags"])]);
}

/// With the attribute that most lists have which are serialized for something else.
#[test]
fn an_empty_list_under_union_that_serde_leaves_out_removes_nothing() {
    #[derive(Serialize, MixpanelGroup)]
    #[mixpanel(group_key = "company", serde, unset_none)]
    struct Company {
        #[mixpanel(group_id)]
        id: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[mixpanel(union)]
        integrations: Vec<&'static str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        owners: Vec<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        #[mixpanel(union)]
        tags: Option<Vec<u8>>,
        // What is written of an empty text is not an empty list.
        #[serde(skip_serializing_if = "String::is_empty", serialize_with = "split")]
        #[mixpanel(union)]
        regions: String,
    }
    fn split<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(text.split(','))
    }
    let company = Company {
        id: 7,
        integrations: vec![],
        owners: vec![],
        tags: None,
        regions: String::new(),
    };
    assert_eq!(all(&company), json!({"$unset": ["owners", "tags"]}));
}

#[test]
fn an_id_has_a_prefix_or_a_function() {
    struct Account {
        number: u32,
    }

    fn name(account: &Account) -> String {
        format!("account-{}", account.number)
    }

    fn borrowed(name: &str) -> Id<'_> {
        name.trim().into()
    }

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Prefixed {
        #[mixpanel(group_id(prefix = "company_"))]
        id: u64,
    }
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "account")]
    struct Named {
        #[mixpanel(group_id(with = "name"))]
        account: Account,
    }
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "account")]
    struct Both {
        #[mixpanel(group_id(with = "borrowed", prefix = "a-"))]
        id: String,
    }
    let prefixed = Prefixed { id: 12345 };
    assert_eq!(prefixed.group(), Group::new("company", "company_12345"));
    let account = Account { number: 7 };
    assert_eq!(
        Named { account }.group(),
        Group::new("account", "account-7")
    );
    let both = Both { id: " b ".into() };
    assert_eq!(both.group(), Group::new("account", "a-b"));
}

#[test]
fn anything_that_names_a_group_is_an_id() {
    struct AccountId(u64);

    impl GroupId for AccountId {
        fn group_id(&self) -> Id<'_> {
            self.0.group_id()
        }
    }

    macro_rules! ids {
        ($($type:ty: $id:expr => $text:literal;)*) => {$({
            #[derive(MixpanelGroup)]
            #[mixpanel(group_key = "company")]
            struct Company<'a> {
                #[mixpanel(group_id)]
                id: $type,
                #[mixpanel(skip)]
                #[expect(dead_code, reason = "so that `'a` is in use")]
                name: &'a str,
            }
            let company = Company { id: $id, name: "" };
            assert_eq!(company.group(), Group::new("company", $text));
        })*};
    }

    ids! {
        String: "acme".to_owned() => "acme";
        &'a str: "acme" => "acme";
        Cow<'a, str>: Cow::Borrowed("acme") => "acme";
        Box<str>: "acme".into() => "acme";
        Rc<str>: "acme".into() => "acme";
        Arc<str>: "acme".into() => "acme";
        u8: 1 => "1";
        u16: 1 => "1";
        u32: 1 => "1";
        u64: u64::MAX => "18446744073709551615";
        u128: u128::MAX => "340282366920938463463374607431768211455";
        usize: 1 => "1";
        i8: -1 => "-1";
        i16: -1 => "-1";
        i32: -1 => "-1";
        i64: i64::MIN => "-9223372036854775808";
        i128: i128::MIN => "-170141183460469231731687303715884105728";
        isize: -1 => "-1";
        AccountId: AccountId(7) => "7";
        &'a AccountId: &AccountId(7) => "7";
        uuid::Uuid: uuid::Uuid::from_u128(7) => "00000000-0000-0000-0000-000000000007";
    }
}

#[test]
fn union_takes_lists_and_sets() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company<'a> {
        #[mixpanel(group_id)]
        id: u64,
        #[mixpanel(union)]
        vec: Vec<u8>,
        #[mixpanel(union)]
        deque: VecDeque<u8>,
        #[mixpanel(union)]
        slice: &'a [u8],
        #[mixpanel(union)]
        array: [u8; 1],
        #[mixpanel(union)]
        hash_set: HashSet<u8>,
        #[mixpanel(union)]
        tree_set: BTreeSet<u8>,
        #[mixpanel(union)]
        some: Option<Vec<u8>>,
        #[mixpanel(union)]
        none: Option<Vec<u8>>,
        #[mixpanel(union)]
        empty: Vec<u8>,
    }
    let company = Company {
        id: 7,
        vec: vec![1],
        deque: [2].into(),
        slice: &[3],
        array: [4],
        hash_set: [5].into(),
        tree_set: [6].into(),
        some: Some(vec![7]),
        none: None,
        empty: vec![],
    };
    assert_eq!(
        all(&company),
        json!({"$union": {
            "vec": [1], "deque": [2], "slice": [3], "array": [4],
            "hash_set": [5], "tree_set": [6], "some": [7],
        }})
    );
}

#[test]
fn a_company_id_goes_with_every_update() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "team")]
    struct Team {
        #[mixpanel(group_id)]
        id: u32,
        #[mixpanel(company_id)]
        company: String,
        #[mixpanel(set_once)]
        name: String,
    }
    let team = Team {
        id: 7,
        company: "acme".into(),
        name: "Tools".into(),
    };
    let group = r#"{"$group_key":"team","$group_id":"7","$company_id":"acme""#;
    let in_full = |update: &Update<'_>| update.to_json().unwrap();
    assert_eq!(team.group(), Group::new("team", 7).in_company("acme"));
    assert_eq!(in_full(&team.set()), None, "nothing to set");
    for (update, operation) in [
        (team.set_once(), r#""$set_once":{"name":"Tools"}"#),
        (team.unset(["a"]), r#""$unset":["a"]"#),
        (team.remove("tags", "a"), r#""$remove":{"tags":"a"}"#),
        (team.delete(), r#""$delete":"""#),
    ] {
        assert_eq!(in_full(&update), Some(format!("{group},{operation}}}")));
    }
    let names: Vec<_> = Team::PROPERTIES.iter().map(|p| p.name).collect();
    assert_eq!(names, ["name"], "an id is not a property");
}

#[test]
fn a_company_is_in_itself() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "$company_id")]
    struct Company {
        #[mixpanel(group_id(with = "str::trim"), company_id)]
        id: String,
        plan: Plan,
    }
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "$user_id")]
    struct User {
        #[mixpanel(company_id, group_id)]
        id: u8,
        #[mixpanel(union)]
        roles: [&'static str; 1],
    }
    let company = Company {
        id: " acme ".into(),
        plan: Plan::Enterprise,
    };
    assert_eq!(
        company.set().to_json().unwrap().unwrap(),
        r#"{"$group_key":"$company_id","$group_id":"acme","$company_id":"acme","$set":{"plan":"enterprise"}}"#
    );
    let user = User {
        id: 7,
        roles: ["admin"],
    };
    assert_eq!(
        user.union().to_json().unwrap().unwrap(),
        r#"{"$group_key":"$user_id","$group_id":"7","$company_id":"7","$union":{"roles":["admin"]}}"#
    );
}

#[test]
fn the_fields_of_a_flattened_value_are_properties() {
    #[derive(Serialize)]
    struct Address {
        country: &'static str,
        zip: Option<u32>,
    }

    fn upper<S: Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("COUNTRY", address.country.to_uppercase())])
    }

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", unset_none)]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(flatten)]
        address: Address,
        #[mixpanel(flatten, with = "upper")]
        again: Address,
        #[mixpanel(flatten)]
        more: Option<HashMap<String, u8>>,
        #[mixpanel(flatten, skip_if = "HashMap::is_empty")]
        none: HashMap<String, u8>,
        #[mixpanel(flatten, set_once)]
        once: HashMap<String, u8>,
        #[mixpanel(flatten, union)]
        lists: HashMap<String, Vec<u8>>,
    }
    let address = || Address {
        country: "us",
        zip: None,
    };
    let mut company = Company {
        id: 1,
        address: address(),
        again: address(),
        more: Some([("more".to_owned(), 2)].into()),
        none: [].into(),
        once: [("once".to_owned(), 3)].into(),
        lists: [("list".to_owned(), vec![4])].into(),
    };
    assert_eq!(
        all(&company),
        json!({
            "$set": {"country": "us", "COUNTRY": "US", "more": 2},
            "$set_once": {"once": 3},
            "$union": {"list": [4]},
        })
    );
    let property = Company::PROPERTIES[0];
    assert_eq!((property.name, property.field), ("", "address"));

    company.more = Some([("country".to_owned(), 5)].into());
    let collision = company.set().to_json().unwrap_err().to_string();
    assert!(collision.contains("country"), "{collision}");
}

#[test]
fn a_flattened_name_may_not_be_that_of_a_field() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(rename = "Seats Purchased", set_once)]
        seats: u8,
        #[mixpanel(flatten)]
        more: HashMap<&'static str, u8>,
    }
    let company = Company {
        id: 1,
        seats: 2,
        more: [("Seats Purchased", 3)].into(),
    };
    let collision = company.set().to_json().unwrap_err().to_string();
    assert!(collision.contains("Seats Purchased"), "{collision}");
    assert_eq!(says(&company.set_once()), json!({"Seats Purchased": 2}));
}

#[test]
fn properties_are_a_tracking_plan() {
    let plan: Vec<_> = Company::PROPERTIES
        .iter()
        .map(|p| (p.name, p.field, p.operation, p.doc))
        .collect();
    let name = "The name that people know it by.";
    let year = "Year of foundation,\nas four digits.";
    assert_eq!(
        plan,
        [
            ("name", "name", Operation::Set, name),
            ("plan", "plan", Operation::Set, ""),
            ("industry", "industry", Operation::Set, ""),
            ("founding_year", "founding_year", Operation::SetOnce, year),
            ("integrations", "integrations", Operation::Union, ""),
            ("Seats Purchased", "seats", Operation::Set, ""),
        ]
    );
    assert_eq!(const { Company::GROUP_KEY }, "company");
}

#[test]
fn doc_comments_are_kept_without_their_indentation() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        ///No indentation,
        ///  but one.
        none: u8,
        /// A list:
        ///
        /// - `"a" \ b`
        ///   - deeper é
        list: u8,
        /**
            A block
              of lines.
        */
        block: u8,
        /**
         * A block with stars,
         *
         * - `*`
         *   * deeper
         */
        stars: u8,
        /** Begun at once,
         *  ended so. */
        begun: u8,
        /**
            Stars of its own:
             * one
        */
        own: u8,
        #[doc = "A list:\n  * one\n    * deeper"]
        list_at_once: u8,
        #[doc = "Of an attribute:\n* one\n* two"]
        list_of_attribute: u8,
        #[doc = "An attribute"]
        #[doc(hidden)]
        #[doc = "in two."]
        attribute: u8,
    }
    let docs: Vec<_> = Company::PROPERTIES.iter().map(|p| p.doc).collect();
    assert_eq!(
        docs,
        [
            "No indentation,\n  but one.",
            "A list:\n\n- `\"a\" \\ b`\n  - deeper é",
            "A block\n  of lines.",
            "A block with stars,\n\n- `*`\n  * deeper",
            "Begun at once,\n ended so.",
            "Stars of its own:\n * one",
            "A list:\n  * one\n    * deeper",
            "Of an attribute:\n* one\n* two",
            "An attribute\nin two.",
        ]
    );
}

#[test]
fn a_struct_with_only_an_id_can_unset_and_delete() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", unset_none)]
    struct Company {
        #[mixpanel(group_id)]
        id: &'static str,
    }
    let company = Company { id: "acme" };
    assert_eq!(company.updates().count(), 0);
    assert_eq!(company.set().to_json().unwrap(), None);
    assert_eq!(says(&company.delete()), json!(""));
    let nobody = Company { id: "" };
    let error = nobody.delete().to_json().unwrap_err().to_string();
    assert!(error.contains("$group_id"), "{error}");
}

/// `Option` is not found by its name.
#[test]
fn what_serializes_to_null_is_absent() {
    type Maybe<T> = Option<T>;

    #[derive(Serialize)]
    struct Wrapped(Option<u8>);

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", unset_none)]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        alias: Maybe<u8>,
        wrapped: Wrapped,
        nan: f64,
        unit: (),
        json: serde_json::Value,
        some: Option<u8>,
    }
    let company = Company {
        id: 1,
        alias: None,
        wrapped: Wrapped(None),
        nan: f64::NAN,
        unit: (),
        json: json!(null),
        some: Some(2),
    };
    assert_eq!(
        all(&company),
        json!({
            "$set": {"some": 2},
            "$unset": ["alias", "wrapped", "nan", "unit", "json"],
        })
    );
}

/// Segment's Mixpanel destination uses it, and so do the projects that are set up for Segment.
#[test]
fn a_group_key_may_start_with_a_dollar() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "$group_id")]
    struct Company {
        #[mixpanel(group_id)]
        id: &'static str,
    }
    let json = Company { id: "acme" }.delete().to_json().unwrap();
    assert_eq!(
        json.as_deref(),
        Some(r#"{"$group_key":"$group_id","$group_id":"acme","$delete":""}"#)
    );
}

#[test]
fn a_flattened_enum_with_data_is_one_property_as_serde_json_has_it() {
    #[derive(Serialize)]
    enum Plan {
        Trial {
            days: u8,
            note: Option<&'static str>,
        },
        Seats(u32),
        Range(u8, u8),
        Nested(HashMap<&'static str, [u8; 2]>),
        Free,
    }

    #[derive(MixpanelGroup, Serialize)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        #[serde(skip)]
        id: u8,
        size: u8,
        #[mixpanel(flatten)]
        #[serde(flatten)]
        plan: Plan,
    }
    let of = |plan| Company {
        id: 1,
        size: 2,
        plan,
    };
    for plan in [
        Plan::Trial {
            days: 3,
            note: None,
        },
        Plan::Seats(4),
        Plan::Range(5, 6),
        Plan::Nested([("a \"", [7, 8])].into()),
    ] {
        let company = of(plan);
        let expected = serde_json::to_value(&company).unwrap();
        assert_eq!(says(&company.set()), expected);
        assert!(company.changes_since(&of(Plan::Seats(9))).next().is_some());
        assert!(company.changes_since(&company).next().is_none());
    }
    // A property that is `null` is absent.
    let free = of(Plan::Free);
    assert_eq!(serde_json::to_value(&free).unwrap()["Free"], Value::Null);
    assert_eq!(says(&free.set()), json!({"size": 2}));
}

#[test]
fn a_packed_struct_is_copied_field_by_field() {
    #[derive(Clone, Copy, MixpanelGroup)]
    #[repr(C, packed(2))]
    #[mixpanel(group_key = "company")]
    struct Company {
        first: u8,
        #[mixpanel(group_id(prefix = "c_"))]
        id: u64,
        #[mixpanel(company_id)]
        parent: &'static str,
        #[mixpanel(set_once)]
        year: u32,
        #[mixpanel(union)]
        sizes: [u16; 2],
        #[mixpanel(skip_if = "is_zero")]
        seats: u32,
        #[mixpanel(with = "text")]
        shown: u64,
    }

    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_zero(number: &u32) -> bool {
        *number == 0
    }

    fn text<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    let company = Company {
        first: 1,
        id: 2,
        parent: "acme",
        year: 2009,
        sizes: [3, 4],
        seats: 0,
        shown: 5,
    };
    assert_eq!(
        all(&company),
        json!({
            "$set": {"first": 1, "shown": "5"},
            "$set_once": {"year": 2009},
            "$union": {"sizes": [3, 4]},
        })
    );
    assert_eq!(company.group().id().as_str(), "c_2");
    let mut after = company;
    after.seats = 6;
    let changes: Vec<_> = after.changes_since(&company).collect();
    assert_eq!(changes.len(), 1);
    assert_eq!(says(&changes[0]), json!({"seats": 6}));
}

macro_rules! number_of {
    ($what:literal) => {
        concat!("The number of ", $what, ".")
    };
}

#[test]
fn docs_from_macros_are_in_the_tracking_plan() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[doc = number_of!("seats")]
        seats: u8,
        /// From a file:
        #[doc = include_str!("plan.md")]
        plan: u8,
    }
    let docs: Vec<_> = Company::PROPERTIES.iter().map(|p| p.doc).collect();
    assert_eq!(
        docs,
        [
            "The number of seats.",
            " From a file:\nThe plan that the company pays for.\n"
        ]
    );
    let company = Company {
        id: 1,
        seats: 2,
        plan: 3,
    };
    assert_eq!(says(&company.set()), json!({"seats": 2, "plan": 3}));
}

#[test]
fn numbers_that_are_never_zero_are_ids() {
    use std::num::{NonZeroI8, NonZeroU64};

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: NonZeroU64,
        #[mixpanel(company_id)]
        parent: NonZeroI8,
    }
    let company = Company {
        id: NonZeroU64::MAX,
        parent: NonZeroI8::MIN,
    };
    assert_eq!(company.group().id().as_str(), u64::MAX.to_string());
    assert_eq!(company.group().company_id().unwrap().as_str(), "-128");
}

#[test]
fn a_list_of_another_crate_is_named_by_the_function_that_serializes_it() {
    /// As if it were in another crate.
    #[derive(Serialize)]
    struct SmallVec([&'static str; 2]);

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(union, with = "serde::Serialize::serialize")]
        tags: SmallVec,
    }
    let company = Company {
        id: 1,
        tags: SmallVec(["a", "b"]),
    };
    assert_eq!(says(&company.union()), json!({"tags": ["a", "b"]}));
}

#[test]
fn an_empty_id_is_rejected_with_a_prefix_too() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id(prefix = "company_"))]
        id: &'static str,
        plan: u8,
    }
    let company = Company { id: "", plan: 1 };
    let error = company.set().to_json().unwrap_err().to_string();
    assert!(error.contains("the id is empty"), "{error}");
}

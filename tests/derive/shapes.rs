//! Structs of every shape: generics, borrowed and unsized fields, `cfg`, macros, nesting.
#![allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "`skip_if` and `with` take references"
)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;

use mixpanel_groups::{EncodedUpdate, Group, GroupId, List, MixpanelGroup};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use common::{all, says};

fn text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Neither `Serialize` nor anything else.
struct Nothing;

trait Source {
    type Item;
}

impl Source for Nothing {
    type Item = u8;
}

#[test]
fn bounds_are_inferred_from_what_is_sent() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company<'a, I, T: ?Sized, L, W: Display, Q, P, S: Source> {
        #[mixpanel(group_id)]
        id: Arc<I>,
        nested: Vec<Option<(&'a T, [u8; 2])>>,
        #[mixpanel(union)]
        list: &'a L,
        #[mixpanel(with = "text")]
        with: W,
        #[mixpanel(skip)]
        #[expect(dead_code, reason = "never sent, so never read")]
        skipped: Q,
        phantom: PhantomData<P>,
        item: S::Item,
        #[mixpanel(union)]
        items: Vec<S::Item>,
    }

    fn needs_no_more<I, T, L, W, Q, P, S>(
        company: &Company<'_, I, T, L, W, Q, P, S>,
    ) -> serde_json::Value
    where
        I: GroupId,
        T: Serialize + ?Sized,
        L: List,
        W: Display,
        S: Source<Item: Serialize>,
    {
        assert_eq!(company.changes_since(company).count(), 0);
        json!(company.group().id())
    }

    let company: Company<'_, _, _, _, _, _, Nothing, Nothing> = Company {
        id: Arc::new("acme"),
        nested: vec![Some(("one", [2, 3])), None],
        list: &vec![4],
        with: 5,
        skipped: Nothing,
        phantom: PhantomData,
        item: 6,
        items: vec![7],
    };
    assert_eq!(
        json!([needs_no_more(&company), all(&company)]),
        json!(["acme", {
            "$set": {"nested": [["one", [2, 3]], null], "with": "5", "item": 6},
            "$union": {"list": [4], "items": [7]},
        }])
    );
}

#[test]
fn a_bound_replaces_what_would_be_inferred() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", bound = "T: Display, [u8; N]: Serialize")]
    struct Company<T, const N: usize> {
        #[mixpanel(group_id(with = "ToString::to_string"))]
        id: T,
        bytes: [u8; N],
    }
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", bound = "")]
    struct NoBound<T: Source<Item = u8>> {
        #[mixpanel(group_id)]
        id: T::Item,
        item: T::Item,
    }
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", bound = "Option<T>: List")]
    struct Optional<T>
    where
        T: Clone,
    {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(union)]
        list: Option<T>,
    }
    let company = Company {
        id: 1.5,
        bytes: [1, 2],
    };
    assert_eq!(company.group(), Group::new("company", "1.5"));
    assert_eq!(all(&company), json!({"$set": {"bytes": [1, 2]}}));
    let company = NoBound::<Nothing> { id: 1, item: 2 };
    assert_eq!(all(&company), json!({"$set": {"item": 2}}));
    let company = Optional {
        id: 1,
        list: Some([2]),
    };
    assert_eq!(all(&company), json!({"$union": {"list": [2]}}));
}

#[test]
fn parameters_have_defaults_and_where_clauses() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    #[expect(explicit_outlives_requirements, reason = "to be carried over")]
    struct Company<'a, 'b: 'a, T: ?Sized + 'a = str, U = u8, const N: usize = 3>
    where
        U: Copy + 'b,
        T: PartialEq,
    {
        #[mixpanel(group_id)]
        id: &'a str,
        name: &'a T,
        other: &'b U,
        #[mixpanel(skip)]
        #[expect(dead_code, reason = "never sent, so never read")]
        bytes: [u8; N],
    }
    let company: Company<'_, '_> = Company {
        id: "acme",
        name: "Acme",
        other: &1,
        bytes: [0; 3],
    };
    assert_eq!(all(&company), json!({"$set": {"name": "Acme", "other": 1}}));
}

#[test]
fn the_last_field_may_be_unsized() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company<T: ?Sized> {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(union)]
        list: T,
    }
    let company: &Company<[u8]> = &Company {
        id: 1,
        list: [2, 3],
    };
    assert_eq!(company.group(), Group::new("company", 1));
    let sized = Company { id: 1, list: [2] };
    assert_eq!(all(&sized), json!({"$union": {"list": [2]}}));
}

#[test]
fn fields_may_be_conditional() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[cfg(any())]
        never: NoSuchType,
        #[cfg(not(any()))]
        always: u8,
        #[cfg_attr(all(), mixpanel(rename = "renamed"))]
        name: u8,
    }
    let company = Company {
        id: 1,
        always: 2,
        name: 3,
    };
    assert_eq!(all(&company), json!({"$set": {"always": 2, "renamed": 3}}));
}

#[test]
fn attributes_may_be_apart() {
    #[derive(MixpanelGroup)]
    #[mixpanel()]
    #[mixpanel(group_key = "company")]
    #[mixpanel(rename_all = "UPPERCASE")]
    struct Company {
        #[mixpanel(group_id)]
        #[mixpanel(company_id)]
        id: u8,
        #[mixpanel(set_once)]
        #[mixpanel(with = "text")]
        #[mixpanel(unset_none)]
        name: u8,
    }
    let company = Company { id: 1, name: 2 };
    assert_eq!(all(&company), json!({"$set_once": {"NAME": "2"}}));
}

macro_rules! company {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident<$life:lifetime, $param:ident> {
            $(
                $(#[$field_meta:meta])*
                $field_vis:vis $field:ident: $type:ty,
            )*
        }
    ) => {
        #[derive(MixpanelGroup)]
        $(#[$meta])*
        $vis struct $name<$life, $param> {
            $(
                $(#[$field_meta])*
                $field_vis $field: $type,
            )*
        }
    };
}

type Same<T> = T;

macro_rules! keyed {
    ($key:literal, $name:expr, $id:ident: $id_type:ty, $union:ty, $path:path, $with:ident) => {
        #[derive(MixpanelGroup)]
        #[mixpanel(group_key = $key)]
        struct Keyed {
            #[mixpanel(group_id)]
            $id: $id_type,
            #[mixpanel(rename = $name, skip_if = $path, with = $with)]
            field: u8,
            #[mixpanel(union)]
            list: $union,
        }
    };
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

#[test]
fn a_macro_may_write_the_struct() {
    company! {
        /// A company.
        #[mixpanel(group_key = "company", rename_all = "camelCase")]
        pub(crate) struct Company<'a, T> {
            #[mixpanel(group_id)]
            id: &'a str,
            /// The plan that is paid for.
            #[mixpanel(set_once, rename = "Plan")]
            pub(self) plan: Option<T>,
            #[mixpanel(union)]
            pub all_tags: Vec<T>,
        }
    }
    let company = Company {
        id: "acme",
        plan: Some(1),
        all_tags: vec![2],
    };
    assert_eq!(
        all(&company),
        json!({"$set_once": {"Plan": 1}, "$union": {"allTags": [2]}})
    );
    assert_eq!(
        Company::<u8>::PROPERTIES[0].doc,
        "The plan that is paid for."
    );

    keyed!("team", "the field", id: Same<u8>, Vec<u8>, is_zero, text);
    let keyed = Keyed {
        id: 1,
        field: 2,
        list: vec![3],
    };
    assert_eq!(keyed.group(), Group::new("team", 1));
    assert_eq!(
        all(&keyed),
        json!({"$set": {"the field": "2"}, "$union": {"list": [3]}})
    );
}

mod outer {
    pub(crate) mod inner {
        #[derive(mixpanel_groups::MixpanelGroup)]
        #[mixpanel(group_key = "company")]
        pub(in crate::shapes::outer) struct Private {
            #[mixpanel(group_id)]
            pub(super) id: u8,
            pub(super) kept: super::Kept,
        }
    }

    #[derive(serde::Serialize)]
    struct Kept(u8);

    pub(super) fn updates() -> serde_json::Value {
        let kept = Kept(2);
        common::all(&inner::Private { id: 1, kept })
    }
}

#[test]
fn visibility_is_of_any_kind() {
    assert_eq!(outer::updates(), json!({"$set": {"kept": 2}}));
}

#[test]
fn text_is_read_through_a_function_of_its_slice() {
    fn trimmed<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text.trim())
    }

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(with = "trimmed", skip_if = "str::is_empty")]
        name: String,
        #[mixpanel(with = "Self::both")]
        both: (u8, u8),
    }

    impl Company {
        fn both<S: Serializer>((a, b): &(u8, u8), serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&format_args!("{a}/{b}"))
        }
    }

    let company = Company {
        id: 1,
        name: " Acme ".into(),
        both: (2, 3),
    };
    assert_eq!(says(&company.set()), json!({"name": "Acme", "both": "2/3"}));
}

/// However deep: what is written can be read again, as an outbox does.
#[test]
fn a_variant_is_as_deep_as_any_value_may_be() {
    #[derive(Serialize)]
    enum Any {
        Newtype(Value),
        Tuple(Value, u8),
        Struct { value: Value },
    }

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        any: Any,
    }
    for levels in 115..125 {
        let value = || (1..levels).fold(json!([]), |value, _| json!([value]));
        for (any, more) in [
            (Any::Newtype(value()), 1),
            (Any::Tuple(value(), 1), 2),
            (Any::Struct { value: value() }, 2),
        ] {
            let json = Company { id: 1, any }.set().to_json();
            assert_eq!(json.is_ok(), levels + more <= 120, "{levels} and {more}");
            if let Ok(Some(json)) = json {
                EncodedUpdate::from_json(&json).unwrap();
            }
        }
    }
}

#[test]
fn json_text_is_as_deep_as_any_value_may_be_with_and_without_spaces() {
    for (levels, spaces) in (115..125).flat_map(|levels| [0, 1, 9].map(|spaces| (levels, spaces))) {
        let [open, space, close] =
            [("[", levels), (" ", spaces), ("]", levels)].map(|(text, times)| text.repeat(times));
        let value = RawValue::from_string(open + &space + &close).unwrap();
        let json = Group::new("company", 1).set(BTreeMap::from([("a", value)]));
        let is_ok = json.to_json().is_ok();
        assert_eq!(is_ok, levels <= 120, "{levels} levels, {spaces} spaces");
    }
}

/// The table in the derive's documentation.
#[test]
fn which_of_two_methods_of_one_name_is_called() {
    #[derive(Clone, Copy, MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u32,
    }

    #[derive(Debug, PartialEq)]
    struct Own;

    impl Company {
        fn set(&self) -> Own {
            Own
        }

        fn union(&mut self) -> Own {
            Own
        }

        fn delete(self) -> Own {
            Own
        }
    }

    let mut company = Company { id: 1 };
    assert_eq!(company.set(), Own);
    assert_eq!(company.union().to_json().unwrap(), None);
    assert_eq!(company.delete(), Own);

    let reference = &company;
    assert_eq!(reference.set(), Own);
    assert_eq!(reference.union().to_json().unwrap(), None);
    assert_eq!(says(&reference.delete()), json!(""));

    let reference = &mut company;
    assert_eq!(reference.set(), Own);
    assert_eq!(reference.union(), Own);
    assert_eq!(reference.delete(), Own);
    assert_eq!(MixpanelGroup::set(reference).to_json().unwrap(), None);
    assert_eq!(MixpanelGroup::union(reference).to_json().unwrap(), None);
    assert_eq!(says(&MixpanelGroup::delete(reference)), json!(""));
}

//! The generated code gives no warning, whatever a crate denies, and needs no `allow`, which
//! `forbid` would refuse. Clippy looks at this file too: `cargo clippy --all-targets`.
#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    unused_qualifications,
    unreachable_pub,
    single_use_lifetimes,
    unused_lifetimes,
    unnameable_types,
    let_underscore_drop,
    explicit_outlives_requirements,
    trivial_casts,
    trivial_numeric_casts,
    unused_results,
    variant_size_differences,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes,
    clippy::indexing_slicing,
    clippy::missing_inline_in_public_items,
    clippy::wildcard_enum_match_arm
)]
#![forbid(unsafe_code, unused_variables, deprecated, non_camel_case_types)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::marker::PhantomData;

use mixpanel_groups::{Group, Id, MixpanelGroup, Operation, Property};
use serde::{Serialize, Serializer};

fn text<T: Display, S: Serializer>(value: T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&value)
}

const fn is_empty(text: &str) -> bool {
    text.is_empty()
}

fn id(text: &str) -> Id<'_> {
    Id::from(text)
}

/// Every key at once.
#[derive(Debug, MixpanelGroup)]
#[mixpanel(group_key = "company", rename_all = "kebab-case", unset_none)]
pub struct Every {
    /// Which.
    #[mixpanel(group_id(prefix = "company_", with = "id"))]
    pub id: String,
    /// Of whom.
    #[mixpanel(company_id)]
    pub parent: String,
    /// Who.
    #[mixpanel(skip_if = "is_empty", with = "text")]
    pub name: String,
    /// Since when.
    #[mixpanel(set_once, rename = "Since")]
    pub since: u16,
    /// What.
    #[mixpanel(union, skip_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// More.
    #[mixpanel(flatten)]
    pub more: BTreeMap<String, u8>,
    /// Never.
    #[mixpanel(skip)]
    pub never: f32,
    /// Perhaps.
    pub perhaps: Option<bool>,
    /// With an underscore, which lints take for "not in use".
    _underscored: u8,
    /// Old.
    #[deprecated]
    #[mixpanel(unset_none)]
    pub old: u8,
}

/// Lifetimes, types and constants.
#[derive(Debug, MixpanelGroup)]
#[mixpanel(group_key = "company")]
pub struct Generic<'a, 'b: 'a, T: ?Sized, U, const N: usize = 1>
where
    U: Display,
{
    /// Which.
    #[mixpanel(group_id)]
    pub id: &'a str,
    /// A part of it.
    pub borrowed: &'b T,
    /// As text.
    #[mixpanel(with = "text")]
    pub shown: U,
    /// Three.
    #[mixpanel(union)]
    pub list: &'a [u8],
    /// As many as told.
    #[mixpanel(skip)]
    pub many: [u8; N],
}

/// Only an id.
#[derive(Debug, MixpanelGroup)]
#[mixpanel(group_key = "company")]
pub struct Bare<'a> {
    /// Which.
    #[mixpanel(group_id)]
    pub id: &'a str,
}

/// One operation only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, MixpanelGroup)]
#[mixpanel(group_key = "company")]
pub struct One {
    /// Which.
    #[mixpanel(group_id)]
    pub id: u8,
    /// Nothing.
    #[mixpanel(set_once)]
    pub marker: PhantomData<u8>,
}

/// On its way out.
#[deprecated]
#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
#[expect(
    missing_debug_implementations,
    reason = "a derived `Debug` would name it"
)]
pub struct Deprecated {
    /// Which.
    #[mixpanel(group_id)]
    pub id: u8,
}

macro_rules! many_fields {
    ($($field:ident)*) => {
        /// Longer than clippy likes its functions.
        #[derive(Debug, MixpanelGroup)]
        #[mixpanel(group_key = "company")]
        pub struct Long {
            /// Which.
            #[mixpanel(group_id)]
            pub id: u8,
            $(
                /// One of many.
                pub $field: u8,
            )*
        }
    };
}

many_fields!(
    a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 c0 c1 c2 c3 c4 c5 c6 c7 c8 c9
    d0 d1 d2 d3 d4 d5 d6 d7 d8 d9 e0 e1 e2 e3 e4 e5 e6 e7 e8 e9 f0 f1 f2 f3 f4 f5 f6 f7 f8 f9
    g0 g1 g2 g3 g4 g5 g6 g7 g8 g9 h0 h1 h2 h3 h4 h5 h6 h7 h8 h9 i0 i1 i2 i3 i4 i5 i6 i7 i8 i9
    j0 j1 j2 j3 j4 j5 j6 j7 j8 j9 k0 k1 k2 k3 k4 k5 k6 k7 k8 k9 l0 l1 l2 l3 l4 l5 l6 l7 l8 l9
);

#[test]
fn what_is_imported_is_used_and_works() {
    let generic: Generic<'_, '_, str, u8> = Generic {
        id: "acme",
        borrowed: "b",
        shown: 1,
        list: &[2],
        many: [3],
    };
    assert_eq!(generic.group(), Group::new("company", "acme"));
    let operations: Vec<Operation> = generic.updates().filter_map(|u| u.operation()).collect();
    assert_eq!(operations, [Operation::Set, Operation::Union]);
    let properties: &[Property] = Every::PROPERTIES;
    assert_eq!(properties.len(), 7);
    assert_eq!(Long::PROPERTIES.len(), 120);
    let [] = Bare::PROPERTIES else {
        panic!("no properties")
    };
    assert!(serde_json::to_string(&Shown(7)).is_ok_and(|json| json == "7"));
}

#[derive(Serialize)]
struct Shown(u8);

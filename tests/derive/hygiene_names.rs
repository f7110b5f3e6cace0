//! The generated code means the same whatever the user's own items, fields and generics are called.
#![allow(
    dead_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unused_macros,
    unreachable_pub,
    clippy::pedantic,
    reason = "names that nobody would choose"
)]

/// Names of types, traits, functions, modules, constants and macros, all taken.
mod items {
    // Each is another type than the one that the generated code means.
    pub struct Option;
    pub struct Result;
    pub struct String;
    pub struct Vec;
    pub struct Group;
    pub struct Update;
    pub struct Property;
    pub struct Operation;
    pub struct EncodeError;
    pub struct GroupId;
    pub struct Id;
    pub struct List;
    pub struct Visitor;
    pub struct Field;
    pub struct str;
    pub struct u8;
    pub struct usize;
    pub struct bool;
    pub trait Serialize {}
    pub trait Serializer {}
    pub trait From {}
    pub trait Sized {}
    pub mod std {}
    pub mod core {}
    pub mod alloc {}
    pub mod serde {}
    pub mod mixpanel_groups {}
    pub mod __private {}
    pub fn Some() {}
    pub fn Ok() {}
    pub fn Err() {}
    pub fn list() {}
    pub fn unless() {}
    pub const None: () = ();
    pub const old: () = ();
    pub const operation: () = ();
    pub const visitor: () = ();
    pub static serializer: () = ();
    macro_rules! vec {
        () => {};
    }
    macro_rules! write {
        () => {};
    }
    macro_rules! matches {
        () => {};
    }
    macro_rules! panic {
        () => {};
    }

    fn text<S: ::serde::Serializer>(
        value: &::core::primitive::u8,
        to: S,
    ) -> ::core::result::Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    fn is_zero(value: &::core::primitive::u8) -> ::core::primitive::bool {
        *value == 0
    }

    #[derive(::mixpanel_groups::MixpanelGroup)]
    #[mixpanel(group_key = "company", unset_none)]
    pub struct Company<'a> {
        /// With every other attribute below it.
        #[mixpanel(group_id(prefix = "c"))]
        pub id: &'a ::core::primitive::str,
        #[mixpanel(company_id)]
        pub company_id: &'a ::core::primitive::str,
        #[mixpanel(with = "text", skip_if = "is_zero")]
        pub with: ::core::primitive::u8,
        #[mixpanel(set_once)]
        pub once: ::core::primitive::u8,
        #[mixpanel(union)]
        pub items: &'a [::core::primitive::u8],
        #[mixpanel(flatten)]
        pub more: ::std::collections::BTreeMap<&'a ::core::primitive::str, ::core::primitive::u8>,
    }

    // Of its own, and of the names that the trait has.
    impl Company<'_> {
        pub const GROUP_KEY: () = ();
        pub const PROPERTIES: () = ();
        pub fn group(&self) -> &'static ::core::primitive::str {
            "mine"
        }
        pub fn set(&self) -> &'static ::core::primitive::str {
            "mine"
        }
        pub fn union(&mut self) -> &'static ::core::primitive::str {
            self.once += 1;
            "mine"
        }
        pub fn visit_properties(&self) {}
    }
}

#[test]
fn ours_stays_reachable_beside_a_method_of_the_same_name() {
    use mixpanel_groups::{Group, MixpanelGroup};

    let mut company = items::Company {
        id: "1",
        company_id: "acme",
        with: 2,
        once: 3,
        items: &[4],
        more: [("more", 5)].into(),
    };
    assert_eq!(company.set(), "mine");
    assert_eq!(items::Company::union(&mut company), "mine");
    assert_eq!(company.once, 4);
    assert_eq!(
        MixpanelGroup::set(&company).to_json().unwrap().unwrap(),
        r#"{"$group_key":"company","$group_id":"c1","$company_id":"acme","$set":{"with":"2","more":5}}"#
    );
    assert_eq!(
        MixpanelGroup::group(&company),
        Group::new("company", "c1").in_company("acme")
    );
}

/// Fields and generics with the names that generated code is likely to use itself.
#[test]
fn fields_and_generics_have_any_name() {
    use mixpanel_groups::{GroupId, MixpanelGroup};
    use serde::Serialize;

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company<'a, 'b, '__a, S, T, E, M, V, const N: usize, const FIELD: usize> {
        #[mixpanel(group_id)]
        self_: S,
        map: T,
        writer: E,
        serializer: M,
        #[mixpanel(set_once)]
        value: V,
        #[mixpanel(union)]
        list: &'a [u8],
        old: &'b str,
        new: &'__a str,
        operation: [u8; 1],
        visitor: u8,
        property: u8,
        r#type: u8,
        r#match: u8,
        #[mixpanel(skip)]
        group: [u8; N],
        #[mixpanel(skip)]
        key: [u8; FIELD],
    }

    let company = Company {
        self_: "acme",
        map: 1,
        writer: 2,
        serializer: 3,
        value: 4,
        list: &[5],
        old: "6",
        new: "7",
        operation: [8],
        visitor: 9,
        property: 10,
        r#type: 11,
        r#match: 12,
        group: [0; 3],
        key: [0; 4],
    };
    assert_eq!(
        company.set().to_json().unwrap().unwrap(),
        r#"{"$group_key":"company","$group_id":"acme","$set":{"map":1,"writer":2,"serializer":3,"old":"6","new":"7","operation":[8],"visitor":9,"property":10,"type":11,"match":12}}"#
    );
    let _: fn() = || {
        fn is_a_group<T: MixpanelGroup>() {}
        fn bounds_are_inferred<
            S: GroupId,
            T: Serialize,
            E: Serialize,
            M: Serialize,
            V: Serialize,
        >() {
            is_a_group::<Company<'_, '_, '_, S, T, E, M, V, 0, 1>>();
        }
        bounds_are_inferred::<u8, u8, u8, u8, u8>();
    };
    let type_ = &Company::<u8, u8, u8, u8, u8, 0, 0>::PROPERTIES[10];
    assert_eq!((type_.name, type_.field), ("type", "type"));
}

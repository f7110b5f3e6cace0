//! The keys of `#[mixpanel(…)]`, each declared once, and how they are read; also what `#[serde(…)]` adds.

use proc_macro2::Ident;
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::{
    Attribute, ExprPath, LitStr, Path, Token, WherePredicate, parenthesized, parse_quote, token,
};

use crate::case::Rule;
use crate::ctxt::Ctxt;
use crate::keys::Keys;
use crate::value::{bound, flag, path, path_value, rule, serialize_string, skip_value, string};

/// A key that may be given once, and the place where it is.
///
/// One whose value is wrong was given all the same, so that nobody calls it missing.
pub(crate) struct Key<T>(Option<(Ident, Option<T>)>);

impl<T> Default for Key<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Key<T> {
    fn set(&mut self, ctxt: &mut Ctxt, key: &Ident, value: syn::Result<T>) {
        if let Some((first, _)) = &self.0 {
            let message = format!("`{key}` is given twice: remove one of the two");
            ctxt.twice([first.span(), key.span()], message);
            return;
        }
        let value = value.map_err(|error| ctxt.push(error)).ok();
        self.0 = Some((key.clone(), value));
    }

    /// The key itself, if it was given.
    pub(crate) fn ident(&self) -> Option<&Ident> {
        self.0.as_ref().map(|(key, _)| key)
    }

    pub(crate) fn is_given(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn value(&self) -> Option<&T> {
        self.0.as_ref().and_then(|(_, value)| value.as_ref())
    }

    /// Takes the value from `#[serde(…)]`, which has a say only where `#[mixpanel(…)]` has none.
    fn or_from_serde(&mut self, key: &Ident, value: Option<T>) {
        if self.0.is_none() && value.is_some() {
            self.0 = Some((key.clone(), value));
        }
    }
}

/// Declares the keys of one place, each with the type of its value, the function that reads it and an example
/// of its use: a struct with a field for each key, and the [`Keys`] for messages.
macro_rules! attributes {
    (
        $(#[$doc:meta])*
        $name:ident $place:literal
        $($key:ident $(as $text:literal)?: $type:ty = $read:ident, $usage:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name {
            $(pub(crate) $key: Key<$type>,)*
        }

        impl $name {
            pub(crate) const KEYS: Keys = Keys {
                place: $place,
                keys: &[$((attributes!(@name $key $($text)?), $usage)),*],
            };

            /// Reads the value of a key.
            fn set(&mut self, ctxt: &mut Ctxt, key: &Ident, input: ParseStream<'_>) {
                match key.to_string().as_str() {
                    $(attributes!(@name $key $($text)?) => {
                        let value = $read(ctxt, key, input);
                        self.$key.set(ctxt, key, value);
                    })*
                    _ => unreachable!("`Keys::check` knows the same keys"),
                }
            }

            /// Returns the keys that were given.
            #[allow(dead_code)] // Used for fields alone.
            pub(crate) fn given(&self) -> impl Iterator<Item = &Ident> {
                [$(self.$key.ident()),*].into_iter().flatten()
            }
        }
    };
    (@name $key:ident) => { stringify!($key) };
    (@name $key:ident $text:literal) => { $text };
}

attributes! {
    /// `#[mixpanel(…)]` on the struct.
    StructAttrs "on the struct"
    group_key: LitStr = string, r#"group_key = "company""#;
    rename_all: Rule = rule, r#"rename_all = "camelCase""#;
    unset_none: () = flag, "unset_none";
    serde: () = flag, "serde";
    krate as "crate": Path = path, "crate = path::to::mixpanel_groups";
    bound: Vec<WherePredicate> = bound, r#"bound = "T: serde::Serialize""#;
}

attributes! {
    /// What `group_id(…)` holds.
    IdAttrs "inside `group_id(…)`"
    prefix: LitStr = string, r#"group_id(prefix = "company_")"#;
    with: ExprPath = path, r#"group_id(with = "path::to::function")"#;
}

attributes! {
    /// `#[mixpanel(…)]` on a field.
    FieldAttrs "on a field"
    group_id: IdAttrs = group_id, "group_id";
    company_id: () = flag, "company_id";
    set_once: () = flag, "set_once";
    union: () = flag, "union";
    rename: LitStr = string, r#"rename = "Seats Purchased""#;
    skip: () = flag, "skip";
    skip_if: ExprPath = path, r#"skip_if = "path::to::function""#;
    with: ExprPath = path, r#"with = "path::to::function""#;
    flatten: () = flag, "flatten";
    unset_none: () = flag, "unset_none";
}

impl StructAttrs {
    pub(crate) fn read(ctxt: &mut Ctxt, attrs: &[Attribute]) -> Self {
        let mut read = Self::default();
        read_mixpanel(ctxt, attrs, &Self::KEYS, |ctxt, key, input| {
            read.set(ctxt, key, input);
        });
        if read.serde.is_given() {
            read_serde(attrs, |key, input| {
                if key == "rename_all" {
                    let rule = serialize_string(input).map(|rule| rule.value());
                    let rule = rule.and_then(|rule| Rule::from_name(&rule));
                    read.rename_all.or_from_serde(key, rule);
                }
            });
        }
        read
    }

    /// Returns the path of the library: by its own name, unless `crate` names another.
    pub(crate) fn krate_or_default(&self) -> Path {
        let own = || parse_quote!(::mixpanel_groups);
        self.krate.value().cloned().unwrap_or_else(own)
    }
}

impl FieldAttrs {
    pub(crate) fn read(ctxt: &mut Ctxt, attrs: &[Attribute]) -> Self {
        let mut read = Self::default();
        read_mixpanel(ctxt, attrs, &Self::KEYS, |ctxt, key, input| {
            read.set(ctxt, key, input);
        });
        read
    }

    /// Adds what `#[serde(…)]` says and `#[mixpanel(…)]` does not contradict.
    pub(crate) fn read_serde(&mut self, attrs: &[Attribute]) {
        let is_property = self.given().next().is_some();
        let is_named = self.rename.is_given() || self.unset_none.is_given();
        let is_flat = self.flatten.is_given();
        read_serde(attrs, |key, input| match key.to_string().as_str() {
            "rename" if !is_flat => self.rename.or_from_serde(key, serialize_string(input)),
            "skip" | "skip_serializing" if !is_property => self.skip.or_from_serde(key, Some(())),
            "skip_serializing_if" => self.skip_if.or_from_serde(key, path_value(key, input).ok()),
            "flatten" if !is_named => self.flatten.or_from_serde(key, Some(())),
            "serialize_with" => self.with.or_from_serde(key, path_value(key, input).ok()),
            "with" => {
                let module = path_value::<ExprPath>(key, input);
                let function = module.map(|mut path| {
                    let name = Ident::new("serialize", key.span());
                    path.path.segments.push(name.into());
                    path
                });
                self.with.or_from_serde(key, function.ok());
            }
            _ => {}
        });
    }

    pub(crate) fn is_id(&self) -> bool {
        self.group_id.is_given() || self.company_id.is_given()
    }
}

/// Passes each key of `#[mixpanel(…)]` that exists on to `read`, which takes its value.
fn read_mixpanel(
    ctxt: &mut Ctxt,
    attrs: &[Attribute],
    keys: &Keys,
    mut read: impl FnMut(&mut Ctxt, &Ident, ParseStream<'_>),
) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("mixpanel")) {
        let all = |input: ParseStream<'_>| read_keys(ctxt, input, keys, &mut read);
        if let Err(error) = attr.parse_args_with(all) {
            ctxt.misread(error);
        }
    }
}

/// Whatever is wrong with one key, the next one is read.
fn read_keys(
    ctxt: &mut Ctxt,
    input: ParseStream<'_>,
    keys: &Keys,
    read: &mut dyn FnMut(&mut Ctxt, &Ident, ParseStream<'_>),
) -> syn::Result<()> {
    while !input.is_empty() {
        let no_key = |_| input.error(format!("expected a key; {}", keys.all()));
        let key = input.call(Ident::parse_any).map_err(no_key)?;
        match keys.check(&key.to_string()) {
            Ok(()) => read(ctxt, &key, input),
            Err(message) => {
                ctxt.misread(syn::Error::new(key.span(), message));
                skip_value(input);
            }
        }
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

/// serde's own derive reports what is wrong here, so this only takes what it understands.
fn read_serde(attrs: &[Attribute], mut read: impl FnMut(&Ident, ParseStream<'_>)) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        let _ = attr.parse_nested_meta(|meta| {
            if let Some(key) = meta.path.get_ident() {
                read(key, meta.input);
            }
            skip_value(meta.input);
            Ok(())
        });
    }
}

/// Reads `group_id`, alone or with what its parentheses hold.
fn group_id(ctxt: &mut Ctxt, key: &Ident, input: ParseStream<'_>) -> syn::Result<IdAttrs> {
    let mut id = IdAttrs::default();
    if !input.peek(token::Paren) {
        return flag(ctxt, key, input).map(|()| id);
    }
    let content;
    parenthesized!(content in input);
    read_keys(ctxt, &content, &IdAttrs::KEYS, &mut |ctxt, key, input| {
        id.set(ctxt, key, input);
    })?;
    Ok(id)
}

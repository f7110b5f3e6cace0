//! Reads `#[mixpanel(…)]` and, if it has the key `serde`, `#[serde(…)]`.

use proc_macro2::{Ident, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::{Attribute, ExprPath, Path, Token, parenthesized, parse_quote, token};

use crate::case::Rule;
use crate::ctxt::Ctxt;
use crate::keys::{Attrs, FieldAttrs, IdAttrs, StructAttrs};
use crate::value::{flag, serialize_path, serialize_string, skip_value};

/// A key that may be given once, with its value.
///
/// A key with a wrong value has no value but counts as given, so it is not reported as missing.
pub(crate) struct Key<T>(Option<(Ident, Option<T>)>);

impl<T> Default for Key<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Key<T> {
    pub(crate) fn set(&mut self, ctxt: &mut Ctxt, key: &Ident, value: syn::Result<T>) {
        if let Some((first, _)) = &self.0 {
            let message = format!("`{key}` is given twice: remove one of the two");
            ctxt.twice([first.span(), key.span()], message);
            return;
        }
        let value = value.map_err(|error| ctxt.push(error)).ok();
        self.0 = Some((key.clone(), value));
    }

    /// Returns the key itself, if it was given.
    pub(crate) fn ident(&self) -> Option<&Ident> {
        self.0.as_ref().map(|(key, _)| key)
    }

    pub(crate) fn is_given(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn value(&self) -> Option<&T> {
        self.0.as_ref().and_then(|(_, value)| value.as_ref())
    }

    /// Takes the value from `#[serde(…)]`, unless `#[mixpanel(…)]` gives the key.
    fn or_from_serde(&mut self, key: &Ident, value: Option<T>) {
        if self.0.is_none() && value.is_some() {
            self.0 = Some((key.clone(), value));
        }
    }
}

impl StructAttrs {
    /// Reads the struct's attributes.
    pub(crate) fn read(ctxt: &mut Ctxt, attrs: &[Attribute]) -> Self {
        let mut read: Self = read_mixpanel(ctxt, attrs);
        if read.serde.is_given() {
            read_serde(attrs, |key, input| match key.to_string().as_str() {
                "rename_all" => {
                    let rule = serialize_string(input).map(|rule| rule.value());
                    let rule = rule.and_then(|rule| Rule::from_name(&rule));
                    read.rename_all.or_from_serde(key, rule);
                }
                "into" | "tag" | "transparent" => {
                    let what = match key.to_string().as_str() {
                        "into" => "serializes another type in the struct's place",
                        "tag" => "adds a member with the struct's name",
                        _ => "serializes the struct as its only field",
                    };
                    let message = format!(
                        "`serde({key})` {what}, and the properties are this struct's fields"
                    );
                    let hint = "write `mixpanel` attributes instead of `mixpanel(serde)`";
                    ctxt.error(key, format!("{message}: {hint}"));
                }
                _ => {}
            });
        }
        read
    }

    /// Returns the path of the library, by default its own name.
    pub(crate) fn krate_or_default(&self) -> Path {
        let own = || parse_quote!(::mixpanel_groups);
        self.krate.value().cloned().unwrap_or_else(own)
    }
}

impl Key<ExprPath> {
    /// Returns whether it is serde's `skip_serializing_if` with a function such as `Vec::is_empty`.
    pub(crate) fn is_emptiness_of_serde(&self) -> bool {
        let function = self
            .value()
            .and_then(|function| function.path.segments.last());
        function.is_some_and(|last| last.ident == "is_empty")
            && self.ident().is_some_and(|key| key == "skip_serializing_if")
    }
}

impl FieldAttrs {
    /// Adds what `#[serde(…)]` holds and `#[mixpanel(…)]` does not contradict.
    pub(crate) fn read_serde(&mut self, attrs: &[Attribute]) {
        let is_property = self.given().next().is_some();
        let is_named = self.rename.is_given();
        let is_flat = self.flatten.is_given();
        read_serde(attrs, |key, input| match key.to_string().as_str() {
            "rename" if !is_flat => self.rename.or_from_serde(key, serialize_string(input)),
            "skip" | "skip_serializing" if !is_property => self.skip.or_from_serde(key, Some(())),
            "skip_serializing_if" => self.skip_if.or_from_serde(key, serialize_path(input)),
            "flatten" if !is_named => self.flatten.or_from_serde(key, Some(())),
            "serialize_with" => self.with.or_from_serde(key, serialize_path(input)),
            "with" => {
                let function = serialize_path(input).map(|mut path| {
                    let name = Ident::new("serialize", key.span());
                    path.path.segments.push(name.into());
                    path
                });
                self.with.or_from_serde(key, function);
            }
            _ => {}
        });
    }

    pub(crate) fn is_id(&self) -> bool {
        self.group_id.is_given() || self.company_id.is_given()
    }
}

/// Reads every `#[mixpanel(…)]` of one place.
pub(crate) fn read_mixpanel<A: Attrs>(ctxt: &mut Ctxt, attrs: &[Attribute]) -> A {
    let mut read = A::default();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("mixpanel")) {
        let keys = |input: ParseStream<'_>| read_keys(ctxt, input, &mut read);
        if let Err(error) = attr.parse_args_with(keys) {
            ctxt.misread(error);
        }
    }
    read
}

/// Reads keys up to the end of `input`. A mistake in one does not keep the next from being read.
fn read_keys<A: Attrs>(ctxt: &mut Ctxt, input: ParseStream<'_>, read: &mut A) -> syn::Result<()> {
    while !input.is_empty() {
        let not_a_key = |_| input.error(format!("expected a key; {}", A::KEYS.all()));
        let key = input.call(Ident::parse_any).map_err(not_a_key)?;
        match A::KEYS.check(&key.to_string()) {
            // It does not count as given: another one would be reported as the second.
            Ok(()) if input.peek(Token![::]) => {
                let usage = A::KEYS.usage(&key.to_string()).unwrap_or_default();
                let message = format!("expected a key, not a path: write `{usage}`");
                ctxt.misread(syn::Error::new(key.span(), message));
                skip_value(input);
            }
            Ok(()) => read.read_key(ctxt, &key, input),
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

/// Reads the keys of every `#[serde(…)]`. Mistakes are ignored: serde's own derive reports them.
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

/// Reads `group_id`, alone or with keys in parentheses.
pub(crate) fn group_id(
    ctxt: &mut Ctxt,
    key: &Ident,
    input: ParseStream<'_>,
) -> syn::Result<IdAttrs> {
    let mut id = IdAttrs::default();
    if input.peek(token::Paren) {
        let content;
        parenthesized!(content in input);
        let read = read_keys(ctxt, &content, &mut id);
        // `syn` reports tokens that are left in the parentheses as a second mistake.
        while content.parse::<TokenTree>().is_ok() {}
        read?;
    } else {
        flag(ctxt, key, input)?;
    }
    Ok(id)
}

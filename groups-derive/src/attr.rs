//! Reads `#[mixpanel(…)]` and, where it is asked for, `#[serde(…)]`.

use proc_macro2::Ident;
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::{
    Attribute, ExprPath, LitStr, Path, Token, WherePredicate, parenthesized, parse_quote, token,
};

use crate::case::Rule;
use crate::ctxt::Ctxt;
use crate::keys::{Keys, OF_FIELD, OF_GROUP_ID, OF_STRUCT};
use crate::value::{bound, flag, path, rule, serialize_string, skip_value, string};

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

/// `#[mixpanel(…)]` on the struct.
#[derive(Default)]
pub(crate) struct StructAttrs {
    pub(crate) group_key: Key<LitStr>,
    pub(crate) rename_all: Key<Rule>,
    pub(crate) unset_none: Key<()>,
    pub(crate) serde: Key<()>,
    pub(crate) krate: Key<Path>,
    pub(crate) bound: Key<Vec<WherePredicate>>,
}

impl StructAttrs {
    pub(crate) fn read(ctxt: &mut Ctxt, attrs: &[Attribute]) -> Self {
        let mut read = Self::default();
        read_mixpanel(ctxt, attrs, &OF_STRUCT, |ctxt, key, input| {
            match key.to_string().as_str() {
                "group_key" => read.group_key.set(ctxt, key, string(key, input)),
                "rename_all" => read.rename_all.set(ctxt, key, rule(key, input)),
                "unset_none" => read.unset_none.set(ctxt, key, flag(key, input)),
                "serde" => read.serde.set(ctxt, key, flag(key, input)),
                "crate" => read.krate.set(ctxt, key, path(key, input)),
                "bound" => read.bound.set(ctxt, key, bound(key, input)),
                _ => {}
            }
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

    /// Where the library is: by its own name, if nothing else is said.
    pub(crate) fn krate_or_default(&self) -> Path {
        let own = || parse_quote!(::mixpanel_groups);
        self.krate.value().cloned().unwrap_or_else(own)
    }
}

/// What `group_id(…)` holds.
#[derive(Default)]
pub(crate) struct IdAttrs {
    pub(crate) prefix: Key<LitStr>,
    pub(crate) with: Key<ExprPath>,
}

/// `#[mixpanel(…)]` on a field.
#[derive(Default)]
pub(crate) struct FieldAttrs {
    pub(crate) group_id: Key<IdAttrs>,
    pub(crate) company_id: Key<()>,
    pub(crate) set_once: Key<()>,
    pub(crate) union: Key<()>,
    pub(crate) rename: Key<LitStr>,
    pub(crate) skip: Key<()>,
    pub(crate) skip_if: Key<ExprPath>,
    pub(crate) with: Key<ExprPath>,
    pub(crate) flatten: Key<()>,
    pub(crate) unset_none: Key<()>,
}

impl FieldAttrs {
    pub(crate) fn read(ctxt: &mut Ctxt, attrs: &[Attribute]) -> Self {
        let mut read = Self::default();
        read_mixpanel(ctxt, attrs, &OF_FIELD, |ctxt, key, input| {
            match key.to_string().as_str() {
                "group_id" => {
                    let id = group_id(ctxt, key, input);
                    read.group_id.set(ctxt, key, id);
                }
                "company_id" => read.company_id.set(ctxt, key, flag(key, input)),
                "set_once" => read.set_once.set(ctxt, key, flag(key, input)),
                "union" => read.union.set(ctxt, key, flag(key, input)),
                "rename" => read.rename.set(ctxt, key, string(key, input)),
                "skip" => read.skip.set(ctxt, key, flag(key, input)),
                "skip_if" => read.skip_if.set(ctxt, key, path(key, input)),
                "with" => read.with.set(ctxt, key, path(key, input)),
                "flatten" => read.flatten.set(ctxt, key, flag(key, input)),
                "unset_none" => read.unset_none.set(ctxt, key, flag(key, input)),
                _ => {}
            }
        });
        read
    }

    /// Adds what `#[serde(…)]` says and `#[mixpanel(…)]` does not contradict.
    pub(crate) fn read_serde(&mut self, attrs: &[Attribute]) {
        let is_property = self.keys().next().is_some();
        let is_named = self.rename.is_given() || self.unset_none.is_given();
        let is_flat = self.flatten.is_given();
        read_serde(attrs, |key, input| match key.to_string().as_str() {
            "rename" if !is_flat => self.rename.or_from_serde(key, serialize_string(input)),
            "skip" | "skip_serializing" if !is_property => self.skip.or_from_serde(key, Some(())),
            "skip_serializing_if" => self.skip_if.or_from_serde(key, path(key, input).ok()),
            "flatten" if !is_named => self.flatten.or_from_serde(key, Some(())),
            "serialize_with" => self.with.or_from_serde(key, path(key, input).ok()),
            "with" => {
                let module = path::<ExprPath>(key, input);
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

    /// The keys that were given.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Ident> {
        [
            self.group_id.ident(),
            self.company_id.ident(),
            self.set_once.ident(),
            self.union.ident(),
            self.rename.ident(),
            self.skip.ident(),
            self.skip_if.ident(),
            self.with.ident(),
            self.flatten.ident(),
            self.unset_none.ident(),
        ]
        .into_iter()
        .flatten()
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

/// `group_id`, alone or with what its parentheses hold.
fn group_id(ctxt: &mut Ctxt, key: &Ident, input: ParseStream<'_>) -> syn::Result<IdAttrs> {
    let mut id = IdAttrs::default();
    if !input.peek(token::Paren) {
        return flag(key, input).map(|()| id);
    }
    let content;
    parenthesized!(content in input);
    read_keys(
        ctxt,
        &content,
        &OF_GROUP_ID,
        &mut |ctxt, key, input| match key.to_string().as_str() {
            "prefix" => id.prefix.set(ctxt, key, string(key, input)),
            "with" => id.with.set(ctxt, key, path(key, input)),
            _ => {}
        },
    )?;
    Ok(id)
}

//! Reads `#[mixpanel(…)]` and, where it is asked for, `#[serde(…)]`.

use proc_macro2::{Ident, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Attribute, ExprPath, LitStr, Path, Token, WherePredicate, parenthesized, token};

use crate::case::{RULES, Rule};
use crate::ctxt::Ctxt;
use crate::keys::{Keys, OF_FIELD, OF_GROUP_ID, OF_STRUCT, usage};

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

        read_mixpanel(
            ctxt,
            attrs,
            &OF_STRUCT,
            |ctxt, name, key, input| match name {
                "group_key" => read.group_key.set(ctxt, key, string(key, input)),
                "rename_all" => read.rename_all.set(ctxt, key, rule(key, input)),
                "unset_none" => read.unset_none.set(ctxt, key, flag(key, input)),
                "serde" => read.serde.set(ctxt, key, flag(key, input)),
                "crate" => read.krate.set(ctxt, key, path(key, input)),
                _ => read.bound.set(ctxt, key, bound(key, input)),
            },
        );
        if read.serde.is_given() {
            read_serde(attrs, |name, key, input| {
                if name == "rename_all" {
                    let rule =
                        serialize_string(input).and_then(|rule| Rule::from_name(&rule.value()));
                    read.rename_all.or_from_serde(key, rule);
                }
            });
        }
        read
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
        read_mixpanel(
            ctxt,
            attrs,
            &OF_FIELD,
            |ctxt, name, key, input| match name {
                "group_id" => {
                    let id = id(ctxt, key, input);
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
                _ => read.unset_none.set(ctxt, key, flag(key, input)),
            },
        );
        read
    }

    /// What `#[serde(…)]` says and `#[mixpanel(…)]` does not contradict.
    pub(crate) fn read_serde(&mut self, attrs: &[Attribute]) {
        let is_id = self.group_id.is_given() || self.company_id.is_given();
        if is_id || self.skip.is_given() {
            return;
        }
        let is_property = self.keys().next().is_some();
        let is_named = self.rename.is_given() || self.unset_none.is_given();
        let is_flat = self.flatten.is_given();
        let mut skip = Key::default();
        read_serde(attrs, |name, key, input| match name {
            "rename" if !is_flat => self.rename.or_from_serde(key, serialize_string(input)),
            "skip" | "skip_serializing" if !is_property => skip.or_from_serde(key, Some(())),
            "skip_serializing_if" => self.skip_if.or_from_serde(key, path(key, input).ok()),
            "flatten" if !is_named => self.flatten.or_from_serde(key, Some(())),
            "serialize_with" => self.with.or_from_serde(key, path(key, input).ok()),
            "with" => {
                let function = path(key, input).ok().map(|mut module: ExprPath| {
                    module
                        .path
                        .segments
                        .push(Ident::new("serialize", key.span()).into());
                    module
                });
                self.with.or_from_serde(key, function);
            }
            _ => {}
        });
        if skip.is_given() {
            *self = Self {
                skip,
                ..Self::default()
            };
        }
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

/// The doc comment, without the indentation that all its lines share.
pub(crate) fn doc(attrs: &[Attribute]) -> String {
    let mut text = Vec::new();
    for attr in attrs {
        if let syn::Meta::NameValue(meta) = &attr.meta {
            if meta.path.is_ident("doc") {
                if let Some(line) = literal(&meta.value) {
                    text.push(line.value());
                }
            }
        }
    }
    let text = text.join("\n");
    let indentation = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.chars().take_while(|letter| *letter == ' ').count())
        .min()
        .unwrap_or(0);
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.get(indentation..).unwrap_or("").trim_end())
        .collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

fn literal(expr: &syn::Expr) -> Option<&LitStr> {
    match expr {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) => Some(text),
        syn::Expr::Group(group) => literal(&group.expr),
        _ => None,
    }
}

fn read_mixpanel(
    ctxt: &mut Ctxt,
    attrs: &[Attribute],
    keys: &Keys,
    mut read: impl FnMut(&mut Ctxt, &str, &Ident, ParseStream<'_>),
) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("mixpanel")) {
        let all = |input: ParseStream<'_>| read_keys(ctxt, input, keys, &mut read);
        if let Err(error) = attr.parse_args_with(all) {
            ctxt.misread(error);
        }
    }
}

/// Reads `key, key = value, key(…)`, whatever is wrong with one of them.
fn read_keys(
    ctxt: &mut Ctxt,
    input: ParseStream<'_>,
    keys: &Keys,
    read: &mut dyn FnMut(&mut Ctxt, &str, &Ident, ParseStream<'_>),
) -> syn::Result<()> {
    while !input.is_empty() {
        let no_key = |_| input.error(format!("expected a key; {}", keys.all()));
        let key = input.call(Ident::parse_any).map_err(no_key)?;
        let name = key.unraw().to_string();
        match keys.check(&name) {
            Ok(()) => read(ctxt, &name, &key, input),
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
fn read_serde(attrs: &[Attribute], mut read: impl FnMut(&str, &Ident, ParseStream<'_>)) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        let _ = attr.parse_nested_meta(|meta| {
            if let Some(key) = meta.path.get_ident() {
                read(&key.to_string(), key, meta.input);
            }
            skip_value(meta.input);
            Ok(())
        });
    }
}

fn skip_value(input: ParseStream<'_>) {
    while !input.is_empty() && !input.peek(Token![,]) {
        // There is a token, so one is taken.
        let _ = input.parse::<TokenTree>();
    }
}

/// `key` alone.
fn flag(key: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
    if input.peek(Token![=]) || input.peek(token::Paren) {
        let error = input.error(format!("`{key}` takes no value: write `{key}` alone"));
        skip_value(input);
        return Err(error);
    }
    Ok(())
}

/// `key = value`; `what` says what the value is.
fn value<T>(
    key: &Ident,
    input: ParseStream<'_>,
    what: &str,
    parse: impl FnOnce(ParseStream<'_>) -> syn::Result<T>,
) -> syn::Result<T> {
    let mut place = key.span();
    if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        place = input.span();
        if let Ok(value) = parse(input) {
            return Ok(value);
        }
    }
    skip_value(input);
    Err(syn::Error::new(place, format!("`{key}` takes {what}")))
}

/// `key = "text"`.
fn string(key: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    let what = format!("a text in quotes: `{}`", usage(&key.to_string()));
    value(key, input, &what, Parse::parse)
}

/// `key = "path"`, with or without the quotes.
fn path<T: Parse>(key: &Ident, input: ParseStream<'_>) -> syn::Result<T> {
    let what = format!("a path: `{}`", usage(&key.to_string()));
    value(key, input, &what, |input| {
        if input.peek(LitStr) {
            input.parse::<LitStr>()?.parse()
        } else {
            input.parse()
        }
    })
}

fn rule(key: &Ident, input: ParseStream<'_>) -> syn::Result<Rule> {
    let name = string(key, input)?;
    Rule::from_name(&name.value()).ok_or_else(|| {
        let all = RULES.map(|(name, _)| format!("\"{name}\"")).join(", ");
        let message = format!(
            "unknown rename rule {:?}; the rules are {all}",
            name.value()
        );
        syn::Error::new_spanned(&name, message)
    })
}

fn bound(key: &Ident, input: ParseStream<'_>) -> syn::Result<Vec<WherePredicate>> {
    let text = string(key, input)?;
    let predicates = text.parse_with(Punctuated::<WherePredicate, Token![,]>::parse_terminated);
    predicates
        .map(|all| all.into_iter().collect())
        .map_err(|error| {
            let message = format!(
                "this is no where-clause ({error}): `{}`",
                usage(&key.to_string())
            );
            syn::Error::new_spanned(&text, message)
        })
}

/// `group_id`, alone or with what its parentheses hold.
fn id(ctxt: &mut Ctxt, key: &Ident, input: ParseStream<'_>) -> syn::Result<IdAttrs> {
    let mut read = IdAttrs::default();
    if !input.peek(token::Paren) {
        return flag(key, input).map(|()| read);
    }
    let content;
    parenthesized!(content in input);
    read_keys(
        ctxt,
        &content,
        &OF_GROUP_ID,
        &mut |ctxt, name, key, input| match name {
            "prefix" => read.prefix.set(ctxt, key, string(key, input)),
            _ => read.with.set(ctxt, key, path(key, input)),
        },
    )?;
    Ok(read)
}

/// serde's `key = "text"` or `key(serialize = "text", deserialize = "text")`.
fn serialize_string(input: ParseStream<'_>) -> Option<LitStr> {
    if input.peek(Token![=]) {
        input.parse::<Token![=]>().ok()?;
        return input.parse().ok();
    }
    let content: proc_macro2::Group = input.parse().ok()?;
    let mut found = None;
    let parser = syn::meta::parser(|meta| {
        let text = meta.value()?.parse()?;
        if meta.path.is_ident("serialize") {
            found = Some(text);
        }
        Ok(())
    });
    parser.parse2(content.stream()).ok()?;
    found
}

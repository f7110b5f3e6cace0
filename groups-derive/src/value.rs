//! Reads the value of a key.

use proc_macro2::{Group, Ident, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{ExprPath, LitStr, Token, WherePredicate, token};

use crate::case::{RULES, Rule};
use crate::ctxt::Ctxt;
use crate::keys::usage;

/// Skips the tokens up to the next key.
pub(crate) fn skip_value(input: ParseStream<'_>) {
    while !input.is_empty() && !is_at_end(input) {
        if input.parse::<TokenTree>().is_err() {
            return;
        }
    }
}

/// Returns whether the comma after a value is next: one that a key follows. That in `|seats, serializer| …` is not.
fn is_at_end(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    let is_comma = ahead.parse::<Token![,]>().is_ok();
    let is_name = |ahead: ParseStream<'_>| ahead.call(Ident::parse_any).is_ok();
    let is_after_key = |ahead: ParseStream<'_>| {
        ahead.is_empty()
            || ahead.peek(Token![,])
            || ahead.peek(Token![=])
            || ahead.peek(token::Paren)
    };
    is_comma && (ahead.is_empty() || is_name(&ahead) && is_after_key(&ahead))
}

/// Reads `key` alone.
pub(crate) fn flag(_: &mut Ctxt, key: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
    if input.peek(Token![=]) || input.peek(token::Paren) {
        let error = input.error(format!("`{key}` takes no value: write `{key}` alone"));
        skip_value(input);
        return Err(error);
    }
    Ok(())
}

/// Reads `key = value`. `what` describes the value, for the error.
fn value<T>(
    key: &Ident,
    input: ParseStream<'_>,
    what: &str,
    parse: impl Fn(ParseStream<'_>) -> syn::Result<T>,
) -> syn::Result<T> {
    let mut place = key.span();
    if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        place = input.span();
        // In a fork first: `syn` reports tokens that a failed parse leaves in a group as a second mistake.
        if parse(&input.fork()).is_ok() {
            return parse(input);
        }
    }
    skip_value(input);
    Err(syn::Error::new(place, format!("`{key}` takes {what}")))
}

/// Reads `key = "text"`.
pub(crate) fn string(_: &mut Ctxt, key: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    let what = format!("a text in quotes: `{}`", usage(&key.to_string()));
    value(key, input, &what, Parse::parse)
}

/// Reads `key = "path"`, with or without the quotes.
pub(crate) fn path<T: Parse>(_: &mut Ctxt, key: &Ident, input: ParseStream<'_>) -> syn::Result<T> {
    let what = format!("a path: `{}`", usage(&key.to_string()));
    value(key, input, &what, |input| {
        if input.peek(LitStr) {
            input.parse::<LitStr>()?.parse()
        } else {
            input.parse()
        }
    })
}

/// Reads `key = "rule"`.
pub(crate) fn rule(ctxt: &mut Ctxt, key: &Ident, input: ParseStream<'_>) -> syn::Result<Rule> {
    let text = string(ctxt, key, input)?;
    let name = text.value();
    Rule::from_name(&name).ok_or_else(|| {
        let all = RULES.map(|(name, _)| format!("\"{name}\"")).join(", ");
        let message = format!("unknown rename rule {name:?}; the rules are {all}");
        syn::Error::new(text.span(), message)
    })
}

/// Reads `key = "T: Trait, U: Trait"`.
pub(crate) fn bound(
    ctxt: &mut Ctxt,
    key: &Ident,
    input: ParseStream<'_>,
) -> syn::Result<Vec<WherePredicate>> {
    let text = string(ctxt, key, input)?;
    let all = text.parse_with(Punctuated::<_, Token![,]>::parse_terminated);
    all.map(Vec::from_iter).map_err(|error| {
        let usage = usage(&key.to_string());
        let message = format!("this is not a where-clause ({error}): write `{usage}`");
        syn::Error::new(text.span(), message)
    })
}

/// Reads serde's `key = "text"` or `key(serialize = "text", deserialize = "text")`.
pub(crate) fn serialize_string(input: ParseStream<'_>) -> Option<LitStr> {
    if input.peek(Token![=]) {
        input.parse::<Token![=]>().ok()?;
        return input.parse().ok();
    }
    let content: Group = input.parse().ok()?;
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

/// Reads serde's `key = "path"`.
pub(crate) fn serialize_path(input: ParseStream<'_>) -> Option<ExprPath> {
    serialize_string(input)?.parse().ok()
}

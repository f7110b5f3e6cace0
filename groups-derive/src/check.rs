//! Rules across keys and across fields.

use std::collections::HashMap;

use proc_macro2::{Ident, Span};
use syn::{GenericArgument, PathArguments, Type};

use crate::ast::{Field, Property, ungroup};
use crate::attr::{FieldAttrs, StructAttrs};
use crate::ctxt::Ctxt;

pub(crate) const ENUM: &str = "an enum has no fields to map to properties: derive \
    `serde::Serialize` for it and use it as the type of a struct's field";
pub(crate) const UNION: &str = "the fields of a union cannot be read safely: use a `struct`";
pub(crate) const TUPLE_STRUCT: &str = "a property has its name from its field, and these have \
    none: name them, as in `struct Company { id: String, plan: String }`";
pub(crate) const UNIT_STRUCT: &str = "a group needs an id: give the struct a field for it, as in \
    `struct Company { #[mixpanel(group_id)] id: String }`";

/// The longest name, in characters.
/// ([limits](https://docs.mixpanel.com/docs/data-structure/user-profiles))
const MAX_NAME: usize = 255;

/// The group keys of Hierarchical Groups; no other starts with `$`.
const DOLLAR_KEYS: [&str; 2] = ["$company_id", "$user_id"];

/// The keys of one field that exclude each other.
pub(crate) fn keys(ctxt: &mut Ctxt, attrs: &FieldAttrs) {
    let FieldAttrs {
        group_id,
        company_id,
        ..
    } = attrs;
    if attrs.skip.is_given() {
        let others = attrs.keys().filter(|key| *key != "skip");
        others.for_each(|key| {
            ctxt.error(
                key,
                format!(
                    "`skip` leaves the field out, so `{key}` has no effect: remove one of the two"
                ),
            );
        });
    } else if group_id.is_given() || company_id.is_given() {
        id_keys(ctxt, attrs);
    } else {
        property_keys(ctxt, attrs);
    }
}

fn id_keys(ctxt: &mut Ctxt, attrs: &FieldAttrs) {
    let id = if attrs.group_id.is_given() {
        "group_id"
    } else {
        "company_id"
    };
    for key in attrs
        .keys()
        .filter(|key| *key != "group_id" && *key != "company_id")
    {
        let hint = match key.to_string().as_str() {
            "with" if id == "group_id" => "write `group_id(with = \"path::to::function\")`",
            _ => "remove one of the two",
        };
        ctxt.error(
            key,
            format!("`{key}` is for properties, and the field with `{id}` is none: {hint}"),
        );
    }
    let prefix = attrs.group_id.value().and_then(|id| id.prefix.ident());
    if let (Some(prefix), true) = (prefix, attrs.company_id.is_given()) {
        ctxt.error(
            prefix,
            "the ids of Hierarchical Groups have no prefix: remove it, or remove `company_id`",
        );
    }
}

fn property_keys(ctxt: &mut Ctxt, attrs: &FieldAttrs) {
    if let (Some(set_once), Some(union)) = (attrs.set_once.ident(), attrs.union.ident()) {
        both(
            ctxt,
            [set_once.span(), union.span()],
            [
                "a property has one operation: `set_once` here",
                "and `union` here: remove one of the two",
            ],
        );
    }
    if attrs.flatten.is_given() {
        for key in [attrs.rename.ident(), attrs.unset_none.ident()]
            .into_iter()
            .flatten()
        {
            ctxt.error(key, format!("`{key}` needs a property's name, and with `flatten` the names are those of the value's own fields: remove one of the two"));
        }
    }
}

/// The group key, if it can be one.
pub(crate) fn group_key(ctxt: &mut Ctxt, ident: &Ident, attrs: &StructAttrs) -> Option<String> {
    if !attrs.group_key.is_given() && !attrs.has_unknown {
        let example = ident.to_string().to_lowercase();
        ctxt.error(ident, format!("which group key is this? Write `#[mixpanel(group_key = \"{example}\")]` above the struct, with a key from the project's settings"));
    }
    let key = attrs.group_key.value()?;
    let text = key.value();
    if text.starts_with('$') && !DOLLAR_KEYS.contains(&text.as_str()) {
        let [company, user] = DOLLAR_KEYS;
        ctxt.error(
            key,
            format!(
                "no group key but `{company}` and `{user}` (of Hierarchical Groups) starts with `$`"
            ),
        );
    }
    length(ctxt, key.span(), &text, "a group key");
    Some(text)
}

/// The one field that is the group's id.
pub(crate) fn group_id<'f, 'a>(
    ctxt: &mut Ctxt,
    ident: &Ident,
    fields: &'f [Field<'a>],
) -> Option<&'f Field<'a>> {
    let id = only(ctxt, fields, |attrs| attrs.group_id.ident());
    match id {
        None if fields.iter().any(|field| field.attrs.has_unknown) => {}
        None => ctxt.error(
            ident,
            "which field is the group's id? Write `#[mixpanel(group_id)]` above it",
        ),
        Some(id)
            if id
                .attrs
                .group_id
                .value()
                .is_some_and(|id| !id.with.is_given()) =>
        {
            not_optional(ctxt, id, "group id", "no group");
        }
        Some(_) => {}
    }
    id
}

/// The field that is the company's id, if there is one.
pub(crate) fn company_id<'f, 'a>(
    ctxt: &mut Ctxt,
    fields: &'f [Field<'a>],
) -> Option<&'f Field<'a>> {
    let id = only(ctxt, fields, |attrs| attrs.company_id.ident())?;
    if !id.attrs.group_id.is_given() {
        not_optional(ctxt, id, "company id", "no company");
    }
    Some(id)
}

/// The field with a key that only one may have.
fn only<'f, 'a>(
    ctxt: &mut Ctxt,
    fields: &'f [Field<'a>],
    key: impl Fn(&FieldAttrs) -> Option<&Ident>,
) -> Option<&'f Field<'a>> {
    let mut all = fields
        .iter()
        .filter_map(|field| key(&field.attrs).map(|key| (field, key)));
    let (field, first) = all.next()?;
    for (_, key) in all {
        both(
            ctxt,
            [first.span(), key.span()],
            [
                &format!("`{first}` is given to this field"),
                &format!(
                    "and to this one: a group has one `{key}`, so remove it from one of the two"
                ),
            ],
        );
    }
    Some(field)
}

/// An alias of `Option` is found by the compiler, which knows no `GroupId` for it.
fn not_optional(ctxt: &mut Ctxt, id: &Field<'_>, what: &str, nothing: &str) {
    let ty = ungroup(&id.source.ty);
    let Type::Path(path) = ty else { return };
    let Some(last) = path.path.segments.last() else {
        return;
    };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return;
    };
    let Some(GenericArgument::Type(inner)) = arguments.args.first() else {
        return;
    };
    if last.ident == "Option" {
        let inner = quote::quote!(#inner);
        ctxt.error(ty, format!("a {what} cannot be optional: without one, an update would belong to {nothing}. Make the field a `{inner}`, and derive it only where there is one"));
    }
}

/// Each property has a name of its own.
pub(crate) fn names(ctxt: &mut Ctxt, properties: &[Property<'_>]) {
    let mut seen = HashMap::new();
    for name in properties
        .iter()
        .filter_map(|property| property.name.as_ref())
    {
        length(ctxt, name.span, &name.text, "a property's name");
        if let Some(first) = seen.insert(&name.text, name.span) {
            both(
                ctxt,
                [first, name.span],
                [
                    &format!("a property is named {:?} here", name.text),
                    "and this one is too: give one of them another name with `rename`",
                ],
            );
        }
    }
}

fn length(ctxt: &mut Ctxt, span: Span, name: &str, what: &str) {
    let length = name.chars().count();
    if length == 0 {
        ctxt.push(syn::Error::new(span, format!("{what} cannot be empty")));
    } else if length > MAX_NAME {
        ctxt.push(syn::Error::new(
            span,
            format!("{what} has at most {MAX_NAME} characters, and this one has {length}"),
        ));
    }
}

/// One mistake in two places.
fn both(ctxt: &mut Ctxt, spans: [Span; 2], messages: [&str; 2]) {
    for (span, message) in spans.into_iter().zip(messages) {
        ctxt.push(syn::Error::new(span, message));
    }
}

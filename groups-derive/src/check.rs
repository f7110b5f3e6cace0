//! Checks across keys and across fields.

use std::collections::HashMap;

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt as _;
use syn::{ExprPath, PathArguments, Type};

use crate::ast::{Field, Property, ungroup};
use crate::ctxt::Ctxt;
use crate::keys::{Attrs as _, FieldAttrs, StructAttrs};

pub(crate) const ENUM: &str = "an enum has no fields to map to properties: derive \
    `serde::Serialize` for it and use it as the type of a struct's field";
pub(crate) const UNION: &str = "the fields of a union cannot be read safely: use a `struct`";
pub(crate) const TUPLE_STRUCT: &str = "a property has its name from its field, and these have \
    none: name them, as in `struct Company { id: String, plan: String }`";
pub(crate) const UNIT_STRUCT: &str = "a group needs an id: give the struct a field for it, as in \
    `struct Company { #[mixpanel(group_id)] id: String }`";

/// The length of the longest name, in characters
/// ([limits](https://docs.mixpanel.com/docs/data-structure/user-profiles)).
const MAX_NAME: usize = 255;

/// The names that no property can have, since they stand beside the operation.
const RESERVED: [&str; 2] = ["$group_key", "$group_id"];

/// Checks one field for keys that exclude each other.
pub(crate) fn keys(ctxt: &mut Ctxt, attrs: &FieldAttrs) {
    if attrs.skip.is_given() {
        for key in attrs.given().filter(|key| *key != "skip") {
            let message = format!("`skip` leaves the field out, so `{key}` has no effect");
            ctxt.error(key, format!("{message}: remove one of the two"));
        }
    } else if attrs.group_id.is_given() {
        id_keys(ctxt, attrs, "group");
    } else if attrs.company_id.is_given() {
        id_keys(ctxt, attrs, "company");
    } else {
        property_keys(ctxt, attrs);
    }
}

fn id_keys(ctxt: &mut Ctxt, attrs: &FieldAttrs, whose: &str) {
    let other = |key: &&Ident| *key != "group_id" && *key != "company_id";
    for key in attrs.given().filter(other) {
        let hint = if *key == "with" && whose == "group" {
            "write `group_id(with = \"path::to::function\")`".to_owned()
        } else {
            format!("remove `{key}`")
        };
        let message = format!("`{key}` is for properties, and this field is the {whose}'s id");
        ctxt.error(key, format!("{message}, which every update has: {hint}"));
    }
    let prefix = attrs.group_id.value().and_then(|id| id.prefix.ident());
    if let Some(prefix) = prefix.filter(|_| attrs.company_id.is_given()) {
        let message = "a company has the same id in all of its groups, without a prefix: remove \
                       `prefix` or `company_id`";
        ctxt.error(prefix, message);
    }
}

fn property_keys(ctxt: &mut Ctxt, attrs: &FieldAttrs) {
    if let Some(with) = attrs.with.value() {
        serializer(ctxt, with);
    }
    if let (Some(one), Some(other)) = (attrs.set_once.ident(), attrs.union.ident()) {
        let message = "a property has one operation: remove `set_once` or `union`";
        ctxt.twice([one.span(), other.span()], message);
    }
    flat(
        ctxt,
        attrs,
        [attrs.rename.ident(), attrs.unset_none.ident()],
    );
}

/// Checks that a flattened field has none of these keys.
pub(crate) fn flat<const N: usize>(ctxt: &mut Ctxt, attrs: &FieldAttrs, keys: [Option<&Ident>; N]) {
    let keys = keys.into_iter().flatten();
    for key in keys.filter(|_| attrs.flatten.is_given()) {
        let message = format!("`{key}` is for one property, and `flatten` makes many");
        ctxt.error(
            key,
            format!("{message}, named by the value's own fields: remove one of the two"),
        );
    }
}

/// Functions of the standard library that users name in the place of one that serializes.
#[rustfmt::skip]
const CONVERSIONS: [&str; 17] = [
    "AsRef::as_ref", "Clone::clone", "Into::into", "ToOwned::to_owned", "ToString::to_string",
    "String::clone", "String::from",
    "str::to_lowercase", "str::to_owned", "str::to_string", "str::to_uppercase", "str::trim",
    "i32::to_string", "i64::to_string", "u128::to_string", "u32::to_string", "u64::to_string",
];

/// Checks that the function of `with` is not a conversion. Of other functions the compiler says what is wrong.
fn serializer(ctxt: &mut Ctxt, function: &ExprPath) {
    let names: Vec<_> = function
        .path
        .segments
        .iter()
        .map(|segment| segment.ident.to_string())
        .collect();
    let end = names[names.len().saturating_sub(2)..].join("::");
    if CONVERSIONS.contains(&&*end) {
        let message =
            "`with` takes a function that serializes, `fn(&T, S) -> Result<S::Ok, S::Error>`";
        let hint = "write one, as for serde's `serialize_with`: \
                    `fn text<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> { s.collect_str(value) }`";
        ctxt.error(
            function,
            format!("{message}, and this one converts: {hint}"),
        );
    }
}

/// Checks and returns the group key.
pub(crate) fn group_key(ctxt: &mut Ctxt, ident: &Ident, attrs: &StructAttrs) -> Option<String> {
    if !attrs.group_key.is_given() && !ctxt.has_misread() {
        let example = ident.unraw().to_string().to_lowercase();
        let usage = format!("`#[mixpanel(group_key = \"{example}\")]`");
        let message = "which of the project's group keys is this?";
        ctxt.error(
            ident,
            format!("{message} Write it above the struct: {usage}"),
        );
    }
    let key = attrs.group_key.value()?;
    let text = key.value();
    length(ctxt, key.span(), &text, "a group key");
    Some(text)
}

/// Checks that a struct with a `$` key has the company's id, which each of its updates needs. A company's own is its group
/// id.
pub(crate) fn company_of_dollar_key(
    ctxt: &mut Ctxt,
    attrs: &StructAttrs,
    company: Option<&Field<'_>>,
) {
    let Some(key) = attrs.group_key.value().filter(|_| !ctxt.has_misread()) else {
        return;
    };
    let (message, hint) = match key.value().as_str() {
        "$company_id" => (
            "the group of this key is the company, which every update names",
            "write `#[mixpanel(group_id, company_id)]` at the company's id",
        ),
        "$user_id" => (
            "every update of this group key names the company",
            "write `#[mixpanel(company_id)]` at the field with the user's company",
        ),
        _ => return,
    };
    let message = format!("{message}: {hint}");
    match company.map(|field| &field.attrs) {
        None => ctxt.error(key, message),
        Some(attrs) if key.value() == "$company_id" && !attrs.group_id.is_given() => {
            ctxt.error(attrs.company_id.ident(), message);
        }
        Some(_) => {}
    }
}

/// Checks and returns the field that is the group's id.
pub(crate) fn group_id<'f, 'a>(
    ctxt: &mut Ctxt,
    ident: &Ident,
    fields: &'f [Field<'a>],
) -> Option<&'f Field<'a>> {
    let field = only(ctxt, fields, |attrs| attrs.group_id.ident());
    match field {
        Some(field) => not_optional(ctxt, field, "group"),
        None if ctxt.has_misread() => {}
        None => {
            let message = "which field is the group's id? Write `#[mixpanel(group_id)]` above it";
            ctxt.error(ident, message);
        }
    }
    field
}

/// Checks and returns the field that is the company's id, if there is one.
pub(crate) fn company_id<'f, 'a>(
    ctxt: &mut Ctxt,
    fields: &'f [Field<'a>],
) -> Option<&'f Field<'a>> {
    let field = only(ctxt, fields, |attrs| attrs.company_id.ident())?;
    if !field.attrs.group_id.is_given() {
        not_optional(ctxt, field, "company");
    }
    Some(field)
}

/// Returns the first field with a key that only one may have, and reports the others.
fn only<'f, 'a>(
    ctxt: &mut Ctxt,
    fields: &'f [Field<'a>],
    key: impl Fn(&FieldAttrs) -> Option<&Ident>,
) -> Option<&'f Field<'a>> {
    let mut all = fields
        .iter()
        .filter_map(|field| Some((field, key(&field.attrs)?)));
    let (field, first) = all.next()?;
    for (_, key) in all {
        let message = format!("only one field can be the `{key}`: remove it from the others");
        ctxt.twice([first.span(), key.span()], message);
    }
    Some(field)
}

/// Checks that an id is not an `Option`. An alias of `Option` is left to the compiler, since the type
/// does not implement `GroupId`.
fn not_optional(ctxt: &mut Ctxt, field: &Field<'_>, whose: &str) {
    let ty = ungroup(&field.source.ty);
    let id = field.attrs.group_id.value();
    let is_read_by_function = id.is_some_and(|id| id.with.is_given());
    if is_option(ty) && !is_read_by_function {
        let message = format!("the {whose}'s id cannot be an `Option`");
        let why = format!("an update without one would belong to no {whose}");
        let what = "take it out of the `Option`, and make the struct only where there is an id";
        ctxt.error(ty, format!("{message}, as {why}: {what}"));
    }
}

fn is_option(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path
        .segments
        .last()
        .is_some_and(|last| match &last.arguments {
            PathArguments::AngleBracketed(arguments) => {
                last.ident == "Option" && arguments.args.len() == 1
            }
            _ => false,
        })
}

/// Checks that each property has a valid name of its own.
pub(crate) fn names(ctxt: &mut Ctxt, properties: &[Property<'_>]) {
    let mut seen = HashMap::new();
    for name in properties
        .iter()
        .filter_map(|property| property.name.as_ref())
    {
        length(ctxt, name.span, &name.text, "a property's name");
        if RESERVED.contains(&name.text.as_str()) {
            let message = format!("a property cannot be named {:?}", name.text);
            let why = "it names the group in every update";
            let message = format!("{message}, since {why}: choose another name");
            ctxt.push(syn::Error::new(name.span, message));
        }
        if let Some(first) = seen.insert(&name.text, name.span) {
            let message = format!("two properties are named {:?}", name.text);
            let what = "give one of them another name with `rename`";
            ctxt.twice([first, name.span], format!("{message}: {what}"));
        }
    }
}

fn length(ctxt: &mut Ctxt, span: Span, name: &str, what: &str) {
    let length = name.chars().count();
    if length == 0 {
        ctxt.push(syn::Error::new(span, format!("{what} cannot be empty")));
    } else if length > MAX_NAME {
        let message = format!("{what} has at most {MAX_NAME} characters");
        ctxt.push(syn::Error::new(
            span,
            format!("{message}, and this one has {length}"),
        ));
    }
}

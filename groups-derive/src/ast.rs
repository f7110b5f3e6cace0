//! The model of a struct: what to generate, independent of how the user wrote it.

use proc_macro2::{Ident, Span, TokenStream};
use syn::ext::IdentExt as _;
use syn::{
    Attribute, Data, DeriveInput, ExprPath, Fields, Generics, LitStr, Path, Type, WherePredicate,
};

use crate::attr::read_mixpanel;
use crate::check;
use crate::ctxt::Ctxt;
use crate::doc::doc;
use crate::keys::{FieldAttrs, StructAttrs};
use crate::value::skip_value;

/// A struct that maps to a group.
pub(crate) struct Group<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) generics: &'a Generics,
    /// The path of the library.
    pub(crate) krate: Path,
    pub(crate) key: String,
    pub(crate) id: Id<'a>,
    pub(crate) company_id: Option<Id<'a>>,
    pub(crate) properties: Vec<Property<'a>>,
    pub(crate) bound: Option<Vec<WherePredicate>>,
}

/// The name of a field.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) ident: Ident,
    /// In a struct with `repr(packed)` there are no references to fields, so each is copied.
    pub(crate) is_copied: bool,
}

/// A field that holds the id of the group or of its company.
pub(crate) struct Id<'a> {
    pub(crate) member: Member,
    pub(crate) ty: &'a Type,
    pub(crate) prefix: Option<LitStr>,
    pub(crate) with: Option<ExprPath>,
}

/// A field that is sent as one property, or as many if it is flattened.
pub(crate) struct Property<'a> {
    pub(crate) member: Member,
    pub(crate) ty: &'a Type,
    /// The name on the wire. A flattened field does not have one.
    pub(crate) name: Option<Name>,
    pub(crate) operation: Operation,
    pub(crate) doc: TokenStream,
    pub(crate) skip_if: Option<ExprPath>,
    pub(crate) with: Option<ExprPath>,
    pub(crate) unset_none: bool,
}

/// A property's name and the span that errors about it point to.
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Operation {
    Set,
    SetOnce,
    Union,
}

/// A field and its attributes.
pub(crate) struct Field<'a> {
    pub(crate) member: Member,
    pub(crate) source: &'a syn::Field,
    pub(crate) attrs: FieldAttrs,
}

impl<'a> Group<'a> {
    /// Returns the model of the struct, if it has one, and adds mistakes to `ctxt`.
    pub(crate) fn new(
        ctxt: &mut Ctxt,
        input: &'a DeriveInput,
        attrs: &StructAttrs,
    ) -> Option<Self> {
        let fields = named_fields(ctxt, input)?;
        let is_packed = is_packed(&input.attrs);
        let fields: Vec<Field<'a>> = fields
            .iter()
            .filter_map(|field| Field::read(ctxt, field, is_packed, attrs.serde.is_given()))
            .collect();
        let key = check::group_key(ctxt, &input.ident, attrs);
        let id = check::group_id(ctxt, &input.ident, &fields).map(Field::id);
        let company = check::company_id(ctxt, &fields);
        check::company_of_dollar_key(ctxt, attrs, company);
        let company_id = company.map(Field::id);
        let properties: Vec<_> = fields
            .iter()
            .filter_map(|field| field.property(attrs))
            .collect();
        check::names(ctxt, &properties);
        Some(Self {
            ident: &input.ident,
            generics: &input.generics,
            krate: attrs.krate_or_default(),
            key: key?,
            id: id?,
            company_id: company_id.map(|id| Id { prefix: None, ..id }),
            properties,
            bound: attrs.bound.value().cloned(),
        })
    }
}

fn named_fields<'a>(ctxt: &mut Ctxt, input: &'a DeriveInput) -> Option<&'a Fields> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(_) => return Some(&data.fields),
            Fields::Unnamed(fields) => ctxt.error(fields, check::TUPLE_STRUCT),
            Fields::Unit => ctxt.error(&input.ident, check::UNIT_STRUCT),
        },
        Data::Enum(data) => ctxt.error(data.enum_token, check::ENUM),
        Data::Union(data) => ctxt.error(data.union_token, check::UNION),
    }
    None
}

fn is_packed(attrs: &[Attribute]) -> bool {
    let mut is_packed = false;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("repr")) {
        // A mistake in it is the compiler's to report.
        let _ = attr.parse_nested_meta(|meta| {
            is_packed |= meta.path.is_ident("packed");
            skip_value(meta.input);
            Ok(())
        });
    }
    is_packed
}

impl<'a> Field<'a> {
    fn read(ctxt: &mut Ctxt, field: &'a syn::Field, is_copied: bool, serde: bool) -> Option<Self> {
        let mut attrs: FieldAttrs = read_mixpanel(ctxt, &field.attrs);
        check::keys(ctxt, &attrs);
        if serde && !attrs.is_id() && !attrs.skip.is_given() {
            let was_flat = attrs.flatten.is_given();
            attrs.read_serde(&field.attrs);
            if !was_flat {
                check::flat(ctxt, &attrs, [attrs.unset_none.ident()]);
            }
        }
        let ident = field.ident.clone()?;
        Some(Self {
            member: Member { ident, is_copied },
            source: field,
            attrs,
        })
    }

    fn id(&self) -> Id<'a> {
        let attrs = self.attrs.group_id.value();
        Id {
            member: self.member.clone(),
            ty: ungroup(&self.source.ty),
            prefix: attrs.and_then(|id| id.prefix.value()).cloned(),
            with: attrs.and_then(|id| id.with.value()).cloned(),
        }
    }

    /// Returns the field's property, unless the field is an id or is skipped.
    fn property(&self, struct_attrs: &StructAttrs) -> Option<Property<'a>> {
        let attrs = &self.attrs;
        if attrs.is_id() || attrs.skip.is_given() {
            return None;
        }
        let is_flat = attrs.flatten.is_given();
        let unset_none = attrs.unset_none.is_given() || struct_attrs.unset_none.is_given();
        // An empty list under `union` adds nothing. That serde leaves it out does not mean that the property is to go.
        let is_empty_list = attrs.union.is_given() && attrs.skip_if.is_emptiness_of_serde();
        Some(Property {
            member: self.member.clone(),
            ty: ungroup(&self.source.ty),
            name: (!is_flat).then(|| self.name(struct_attrs)),
            operation: if attrs.union.is_given() {
                Operation::Union
            } else if attrs.set_once.is_given() {
                Operation::SetOnce
            } else {
                Operation::Set
            },
            doc: doc(&self.source.attrs),
            skip_if: attrs.skip_if.value().cloned(),
            with: attrs.with.value().cloned(),
            unset_none: unset_none && !is_flat && !is_empty_list,
        })
    }

    fn name(&self, struct_attrs: &StructAttrs) -> Name {
        if let Some(name) = self.attrs.rename.value() {
            return Name {
                text: name.value(),
                span: name.span(),
            };
        }
        let field = self.member.ident.unraw().to_string();
        let text = match struct_attrs.rename_all.value() {
            Some(rule) => rule.apply(&field),
            None => field,
        };
        Name {
            text,
            span: self.member.ident.span(),
        }
    }
}

/// Removes parentheses around a type, also the invisible ones around a macro's `$t:ty`.
pub(crate) fn ungroup(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            _ => return ty,
        }
    }
}

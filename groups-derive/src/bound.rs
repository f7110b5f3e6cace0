//! The where-clause of the impl: which traits the type parameters must implement.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::{GenericArgument, Path, PathArguments, Type};

use crate::ast::{Group, Operation, ungroup};

/// Returns the struct's own where-clause, followed by `bound` or by what the fields' types need.
pub(crate) fn where_clause(group: &Group<'_>) -> TokenStream {
    let own = group
        .generics
        .where_clause
        .iter()
        .flat_map(|clause| &clause.predicates);
    let mut all: Vec<TokenStream> = own.map(ToTokens::to_token_stream).collect();
    match &group.bound {
        Some(bound) => all.extend(bound.iter().map(ToTokens::to_token_stream)),
        None => all.extend(inferred(group)),
    }
    if all.is_empty() {
        TokenStream::new()
    } else {
        quote!(where #(#all,)*)
    }
}

fn inferred(group: &Group<'_>) -> Vec<TokenStream> {
    let krate = &group.krate;
    let mut bounds = Bounds {
        params: group
            .generics
            .type_params()
            .map(|param| &param.ident)
            .collect(),
        found: Vec::new(),
    };
    for id in [Some(&group.id), group.company_id.as_ref()]
        .into_iter()
        .flatten()
    {
        if id.with.is_none() {
            bounds.find(id.ty, &quote!(#krate::GroupId));
        }
    }
    for property in group
        .properties
        .iter()
        .filter(|property| property.with.is_none())
    {
        let is_union = property.operation == Operation::Union && property.name.is_some();
        if is_union && bounds.is_param(referent(property.ty)) {
            bounds.find(property.ty, &quote!(#krate::List));
        } else {
            bounds.find(property.ty, &quote!(#krate::__private::Serialize));
        }
    }
    bounds.found.into_iter().map(|(_, bound)| bound).collect()
}

fn referent(ty: &Type) -> &Type {
    match ungroup(ty) {
        Type::Reference(reference) => referent(&reference.elem),
        other => other,
    }
}

struct Bounds<'a> {
    params: Vec<&'a Ident>,
    /// Each bound with its text, so that no bound is added twice.
    found: Vec<(String, TokenStream)>,
}

impl Bounds<'_> {
    /// Adds a bound for each type parameter in `ty` and each associated type, such as `T::Item`.
    fn find(&mut self, ty: &Type, bound: &TokenStream) {
        match ty {
            Type::Array(array) => self.find(&array.elem, bound),
            Type::Group(group) => self.find(&group.elem, bound),
            Type::Paren(paren) => self.find(&paren.elem, bound),
            Type::Ptr(pointer) => self.find(&pointer.elem, bound),
            Type::Reference(reference) => self.find(&reference.elem, bound),
            Type::Slice(slice) => self.find(&slice.elem, bound),
            Type::Tuple(tuple) => tuple.elems.iter().for_each(|elem| self.find(elem, bound)),
            Type::Path(path) => {
                if let Some(qself) = &path.qself {
                    self.find(&qself.ty, bound);
                } else if self.starts_with_param(&path.path) {
                    self.add(ty, bound);
                }
                self.find_in_arguments(&path.path, bound);
            }
            _ => {}
        }
    }

    fn find_in_arguments(&mut self, path: &Path, bound: &TokenStream) {
        // `PhantomData<T>` serializes to `null`, so `T` needs no bound.
        let segments = path
            .segments
            .iter()
            .filter(|segment| segment.ident != "PhantomData");
        for segment in segments {
            let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
                continue;
            };
            for argument in &arguments.args {
                match argument {
                    GenericArgument::Type(ty) => self.find(ty, bound),
                    GenericArgument::AssocType(assoc) => self.find(&assoc.ty, bound),
                    _ => {}
                }
            }
        }
    }

    fn is_param(&self, ty: &Type) -> bool {
        matches!(ungroup(ty), Type::Path(ty) if ty.qself.is_none()
            && ty.path.segments.len() == 1
            && self.starts_with_param(&ty.path))
    }

    fn starts_with_param(&self, path: &Path) -> bool {
        let first = path
            .segments
            .first()
            .filter(|_| path.leading_colon.is_none());
        first.is_some_and(|first| self.params.contains(&&first.ident))
    }

    fn add(&mut self, ty: &Type, bound: &TokenStream) {
        let predicate = quote!(#ty: #bound);
        let text = predicate.to_string();
        if !self.found.iter().any(|(found, _)| *found == text) {
            self.found.push((text, predicate));
        }
    }
}

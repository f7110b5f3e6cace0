//! The model as code.

use std::fmt::Write as _;

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::{ExprPath, Path};

use crate::ast::{Group, Id, Operation, Property};
use crate::bound::where_clause;

const OPERATIONS: [Operation; 3] = [Operation::Set, Operation::SetOnce, Operation::Union];

pub(crate) fn expand(group: &Group<'_>) -> TokenStream {
    let krate = &group.krate;
    let key = &group.key;
    let ident = call_site(group.ident);
    let (impl_generics, ty_generics, _) = group.generics.split_for_impl();
    let where_clause = where_clause(group);
    let properties = group
        .properties
        .iter()
        .map(|property| constant(krate, property));
    let group_value = group_value(group);
    let visit = visit(group);
    let with = serialize_with(group).map(|(index, body)| {
        quote! {
            #[automatically_derived]
            impl #impl_generics #krate::__private::SerializeField<#index> for #ident #ty_generics
            #where_clause
            {
                fn serialize_field<__S: #krate::__private::Serializer>(
                    &self,
                    __serializer: __S,
                ) -> #krate::__private::Result<__S::Ok, __S::Error> {
                    #body
                }
            }
        }
    });
    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::MixpanelGroup for #ident #ty_generics #where_clause {
            const GROUP_KEY: &'static #krate::__private::str = #key;
            const PROPERTIES: &'static [#krate::Property] = &[#(#properties,)*];

            fn group(&self) -> #krate::Group<'_> {
                #group_value
            }

            #visit
        }

        #(#with)*
    }
}

/// One entry of `PROPERTIES`.
fn constant(krate: &Path, property: &Property<'_>) -> TokenStream {
    let name = property.name.as_ref().map_or("", |name| &name.text);
    let field = property.member.unraw().to_string();
    let operation = operation(krate, property.operation);
    let doc = &property.doc;
    let key = json_key(name);
    let unset_none = property.unset_none.then(|| quote!(.unset_none()));
    quote!(#krate::Property::new(#name, #field, #operation, #doc, #key) #unset_none)
}

fn operation(krate: &Path, operation: Operation) -> TokenStream {
    match operation {
        Operation::Set => quote!(#krate::Operation::Set),
        Operation::SetOnce => quote!(#krate::Operation::SetOnce),
        Operation::Union => quote!(#krate::Operation::Union),
    }
}

/// `,"name":`, escaped as `serde_json` does, so that nothing is left to do at run time.
fn json_key(name: &str) -> String {
    let mut key = String::from(",\"");
    for letter in name.chars() {
        match letter {
            '"' | '\\' => key.extend(['\\', letter]),
            '\u{8}' => key.push_str("\\b"),
            '\t' => key.push_str("\\t"),
            '\n' => key.push_str("\\n"),
            '\u{c}' => key.push_str("\\f"),
            '\r' => key.push_str("\\r"),
            // Writing to a `String` cannot fail.
            '\0'..' ' => drop(write!(key, "\\u{:04x}", u32::from(letter))),
            _ => key.push(letter),
        }
    }
    key.push_str("\":");
    key
}

fn group_value(group: &Group<'_>) -> TokenStream {
    let krate = &group.krate;
    let id = id_value(krate, &group.id);
    let in_company = group.company_id.as_ref().map(|id| {
        let id = id_value(krate, id);
        quote!(.in_company(#id))
    });
    quote!(#krate::Group::new(<Self as #krate::MixpanelGroup>::GROUP_KEY, #id) #in_company)
}

fn id_value(krate: &Path, id: &Id<'_>) -> TokenStream {
    let value = if let Some(with) = &id.with {
        let value = call(with, &field("self", &id.member, with));
        quote!(<#krate::Id<'_> as #krate::__private::From<_>>::from(#value))
    } else {
        let value = field("self", &id.member, id.ty);
        quote!(#krate::GroupId::group_id(#value))
    };
    match &id.prefix {
        Some(prefix) => quote!(#value.with_prefix(#prefix)),
        None => value,
    }
}

/// The walk over the fields.
fn visit(group: &Group<'_>) -> TokenStream {
    let krate = &group.krate;
    let arms = OPERATIONS.into_iter().filter_map(|one| {
        let properties = group.properties.iter().enumerate();
        let visits: Vec<_> = properties
            .filter(|(_, property)| property.operation == one)
            .map(|(index, property)| visit_property(krate, index, property))
            .collect();
        let operation = operation(krate, one);
        (!visits.is_empty()).then(|| quote!(#operation => { #(#visits)* }))
    });
    let arms: Vec<_> = arms.collect();
    let (old, operation, visitor, walk) = if arms.is_empty() {
        (quote!(_), quote!(_), quote!(_), None)
    } else {
        let walk = quote!(match __operation { #(#arms)* _ => {} });
        (
            quote!(__old),
            quote!(__operation),
            quote!(__visitor),
            Some(walk),
        )
    };
    quote! {
        fn visit_properties<__V: #krate::__private::Visitor>(
            &self,
            #old: &Self,
            #operation: #krate::Operation,
            #visitor: &mut __V,
        ) -> #krate::__private::Result<(), #krate::__private::EncodeError> {
            #walk
            #krate::__private::Ok(())
        }
    }
}

fn visit_property(krate: &Path, index: usize, property: &Property<'_>) -> TokenStream {
    let index = Literal::usize_unsuffixed(index);
    let new = value(krate, "self", &index, property);
    let old = value(krate, "__old", &index, property);
    // The struct may have a constant of that name itself.
    let all = quote!(<Self as #krate::MixpanelGroup>::PROPERTIES);
    // What is asked of both values is reported at the method's name.
    let (first, last) = place(property.ty);
    let visitor = quote_spanned!(first=> <__V as #krate::__private::Visitor>);
    let (method, all_names) = match (&property.name, property.operation) {
        (None, _) => ("flatten", Some(quote!(#all,))),
        (_, Operation::Union) => ("list", None),
        (_, _) => ("property", None),
    };
    let method = Ident::new(method, last);
    quote!(#visitor::#method(__visitor, &#all[#index], #all_names #new, #old)?;)
}

/// A reference to what is sent of a field.
fn value(krate: &Path, of: &str, index: &Literal, property: &Property<'_>) -> TokenStream {
    let Property { member, ty, .. } = property;
    let is_list = property.operation == Operation::Union && property.name.is_some();
    let value = match &property.with {
        Some(_) => {
            let of = Ident::new(of, Span::call_site());
            quote!(&#krate::__private::Field::<Self, #index>(#of))
        }
        None if is_list => {
            let value = field(of, member, ty);
            let (span, _) = place(ty);
            quote_spanned!(span=> #krate::__private::list(#value))
        }
        None => field(of, member, ty),
    };
    match &property.skip_if {
        Some(path) => {
            let skip = call(path, &field(of, member, path));
            quote!(&#krate::__private::unless(#skip, #value))
        }
        None => value,
    }
}

/// The body of `SerializeField` for each field with a function, and the field's index.
fn serialize_with<'a>(group: &'a Group<'_>) -> impl Iterator<Item = (Literal, TokenStream)> + 'a {
    let properties = group.properties.iter().enumerate();
    properties.filter_map(|(index, property)| {
        let with = property.with.as_ref()?;
        let value = field("self", &property.member, with);
        let (span, _) = place(with);
        let body = quote_spanned!(span=> #with(#value, __serializer));
        Some((Literal::usize_unsuffixed(index), body))
    })
}

fn call(function: &ExprPath, argument: &TokenStream) -> TokenStream {
    let (span, _) = place(function);
    quote_spanned!(span=> #function(#argument))
}

/// `&self.field`, put where something is asked of the field: there the compiler points.
fn field(of: &str, member: &Ident, asks: impl ToTokens) -> TokenStream {
    let (first, last) = place(asks);
    let of = Ident::new(of, first);
    let mut member = member.clone();
    member.set_span(last);
    quote_spanned!(first=> &#of.#member)
}

/// From where to where the user's tokens are, as a place for our code.
fn place(tokens: impl ToTokens) -> (Span, Span) {
    let tokens = tokens.into_token_stream().into_iter();
    let mut spans = tokens.map(|token| token.span().resolved_at(Span::call_site()));
    let first = spans.next().unwrap_or_else(Span::call_site);
    (first, spans.last().unwrap_or(first))
}

/// The same name, but no longer as if the user had written this one: lints leave it alone.
pub(crate) fn call_site(ident: &Ident) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(ident.span().resolved_at(Span::call_site()));
    ident
}

//! Generates the code for a model.

use std::fmt::Write as _;

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt as _;
use syn::{ExprPath, Path};

use crate::ast::{Group, Id, Member, Operation, Property};
use crate::bound::where_clause;

const OPERATIONS: [Operation; 3] = [Operation::Set, Operation::SetOnce, Operation::Union];

pub(crate) fn expand(group: &Group<'_>) -> TokenStream {
    let krate = &group.krate;
    let key = &group.key;
    let head = head(key);
    let ident = call_site(group.ident);
    let (impl_generics, ty_generics, _) = group.generics.split_for_impl();
    let where_clause = where_clause(group);
    let properties = group.properties.iter().map(constant);
    let group_value = group_value(group);
    let visit = visit(group);
    let with = serialize_with(group).map(|(index, body)| {
        // Not in the documentation of the user's crate.
        quote! {
            #[automatically_derived]
            #[doc(hidden)]
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
            const GROUP_HEAD: &'static #krate::__private::str = #head;
            const PROPERTIES: &'static [#krate::Property] = {
                type __Operation = #krate::Operation;
                &#krate::Property::all([#(#properties,)*])
            };

            fn group(&self) -> #krate::Group<'_> {
                #group_value
            }

            #visit
        }

        #(#with)*
    }
}

/// Returns one entry of `PROPERTIES`.
fn constant(property: &Property<'_>) -> TokenStream {
    let name = property.name.as_ref().map_or("", |name| &name.text);
    let field = property.member.ident.unraw().to_string();
    let operation = operation(property.operation);
    let doc = &property.doc;
    let key = json_key(name);
    let unset_none = property.unset_none;
    quote!((#name, #field, #operation, #doc, #key, #unset_none))
}

fn operation(operation: Operation) -> TokenStream {
    match operation {
        Operation::Set => quote!(__Operation::Set),
        Operation::SetOnce => quote!(__Operation::SetOnce),
        Operation::Union => quote!(__Operation::Union),
    }
}

/// Returns `,"name":`, so that run time only copies it.
fn json_key(name: &str) -> String {
    format!(",{}:", json_text(name))
}

/// Returns what each update begins with: all but the group's id.
fn head(key: &str) -> String {
    format!("\"$group_key\":{},\"$group_id\":", json_text(key))
}

/// Returns the text in quotes, escaped as `serde_json` does.
fn json_text(text: &str) -> String {
    let mut json = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            '\u{8}' => json.push_str("\\b"),
            '\t' => json.push_str("\\t"),
            '\n' => json.push_str("\\n"),
            '\u{c}' => json.push_str("\\f"),
            '\r' => json.push_str("\\r"),
            // Writing to a `String` cannot fail.
            '\0'..' ' => drop(write!(json, "\\u{:04x}", u32::from(letter))),
            _ => json.push(letter),
        }
    }
    json.push('"');
    json
}

fn group_value(group: &Group<'_>) -> TokenStream {
    let krate = &group.krate;
    let id = id_value(krate, &group.id);
    let in_company = group.company_id.as_ref().map(|id| {
        let id = id_value(krate, id);
        quote!(.in_company(#id))
    });
    // The struct may have a constant of that name.
    let key = quote!(<Self as #krate::MixpanelGroup>::GROUP_KEY);
    quote!(#krate::Group::new(#key, #id) #in_company)
}

fn id_value(krate: &Path, id: &Id<'_>) -> TokenStream {
    let value = if let Some(with) = &id.with {
        let value = call(with, "self", &id.member);
        quote!(#krate::__private::id(#value))
    } else {
        let value = field("self", &id.member, id.ty);
        quote!(#krate::GroupId::group_id(#value))
    };
    // An id may borrow from the field, and a copy does not last.
    let owned = id.member.is_copied.then(|| quote!(.into_owned()));
    let value = quote!(#value #owned);
    match &id.prefix {
        Some(prefix) => quote!(#value.with_prefix(#prefix)),
        None => value,
    }
}

/// Returns the method that walks over the fields of one operation.
fn visit(group: &Group<'_>) -> TokenStream {
    let krate = &group.krate;
    let arms = OPERATIONS.into_iter().filter_map(|one| {
        let properties = group.properties.iter().enumerate();
        let steps: Vec<_> = properties
            .filter(|(_, property)| property.operation == one)
            .map(|(index, property)| step(krate, index, property))
            .collect();
        let operation = operation(one);
        (!steps.is_empty()).then(|| quote!(#operation => #(#steps)&&*,))
    });
    quote! {
        fn visit_properties<__V: #krate::__private::Visitor>(
            &self,
            __old: &Self,
            __operation: #krate::Operation,
            __visitor: &mut __V,
        ) -> #krate::__private::Result<(), #krate::__private::EncodeError> {
            type __Operation = #krate::Operation;
            type __Walk<'__a, __V> = #krate::__private::Walk<'__a, __V>;
            type __Values<'__a, __T> = #krate::__private::Values<'__a, __T>;
            let __properties = <Self as #krate::MixpanelGroup>::PROPERTIES;
            let __walk = &mut __Walk::new(__visitor, __properties);
            let __is_complete = match __operation {
                #(#arms)*
                _ => true,
            };
            __walk.end(__is_complete)
        }
    }
}

/// Returns one step of the walk.
fn step(krate: &Path, index: usize, property: &Property<'_>) -> TokenStream {
    let method = match (&property.name, property.operation) {
        (None, _) => quote!(__flatten),
        (Some(_), Operation::Union) => quote!(__list),
        (Some(_), _) => quote!(__property),
    };
    let method = spanned(method, property.ty);
    let index = Literal::usize_unsuffixed(index);
    let new = value(krate, "self", &index, property);
    let old = value(krate, "__old", &index, property);
    // Here the type is known, and so whether it is one of those that are compared as they are.
    quote!(__Values::new(#new, #old).#method(__walk, #index))
}

/// Returns a reference to the value that is sent for a field.
fn value(krate: &Path, of: &str, index: &Literal, property: &Property<'_>) -> TokenStream {
    let value = if property.with.is_some() {
        let of = Ident::new(of, Span::call_site());
        quote!(&#krate::__private::Field::<Self, #index>(#of))
    } else {
        field(of, &property.member, property.ty)
    };
    match &property.skip_if {
        Some(skip_if) => {
            let skip = call(skip_if, of, &property.member);
            quote!(&#krate::__private::unless(#skip, #value))
        }
        None => value,
    }
}

/// Returns the index and the body of `SerializeField` for each field with a `with` function.
fn serialize_with<'a>(group: &'a Group<'_>) -> impl Iterator<Item = (Literal, TokenStream)> + 'a {
    let properties = group.properties.iter().enumerate();
    properties.filter_map(|(index, property)| {
        let with = property.with.as_ref()?;
        let value = field("self", &property.member, with);
        let body = spanned(quote!(#with(#value, __serializer)), with);
        Some((Literal::usize_unsuffixed(index), body))
    })
}

/// Returns `function(&self.member)`, at the span of the function.
fn call(function: &ExprPath, of: &str, member: &Member) -> TokenStream {
    let value = field(of, member, function);
    spanned(quote!(#function(#value)), function)
}

/// Returns `&self.member`, at the span of what requires something of the field.
fn field(of: &str, member: &Member, place: impl ToTokens) -> TokenStream {
    let place = place.into_token_stream();
    let of = Ident::new(of, Span::call_site());
    let of = spanned(quote!(#of), &place);
    let name = call_site(&member.ident);
    if member.is_copied {
        return spanned(quote!(&{ #of.#name }), place);
    }
    spanned(quote!(&#of.#name), place)
}

/// Moves the code to the span of `place`, which the user wrote: the compiler's errors point there.
/// Names still resolve as before.
fn spanned(code: TokenStream, place: impl ToTokens) -> TokenStream {
    let place: Vec<_> = place.into_token_stream().into_iter().collect();
    let mut code: Vec<_> = code.into_iter().collect();
    if let (Some(token), Some(place)) = (code.last_mut(), place.last()) {
        token.set_span(token.span().located_at(place.span()));
    }
    if let (Some(token), Some(place)) = (code.first_mut(), place.first()) {
        token.set_span(token.span().located_at(place.span()));
    }
    code.into_iter().collect()
}

/// Returns the same name as if the macro had written it, so that lints ignore it.
pub(crate) fn call_site(ident: &Ident) -> Ident {
    let span = ident.span().resolved_at(Span::call_site());
    if ident == "gen" {
        // The macro's edition reserves it, the user's may not. `syn` reads no other word of that kind as a name.
        return Ident::new_raw("gen", span);
    }
    let mut ident = ident.clone();
    ident.set_span(span);
    ident
}

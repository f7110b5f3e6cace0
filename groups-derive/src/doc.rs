use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Expr, ExprLit, Lit, Meta};

/// Returns the doc comment: a text without the indentation that all its lines share, or, where a part of it comes from a
/// macro such as `include_str!`, an expression with every part as it is.
pub(crate) fn doc(attrs: &[Attribute]) -> TokenStream {
    let parts: Vec<_> = attrs.iter().filter_map(part).collect();
    let text: Option<Vec<_>> = parts.iter().map(|part| literal(part)).collect();
    if let Some(text) = text {
        return dedent(&text.join("\n")).into_token_stream();
    }
    let lines = parts.iter().enumerate().map(|(index, part)| {
        let end = (index > 0).then(|| quote!("\n",));
        quote!(#end #part)
    });
    quote!(::core::concat!(#(#lines),*))
}

fn dedent(text: &str) -> String {
    let lines = || text.lines().map(str::trim_end);
    let indentation = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let shared = lines()
        .filter(|line| !line.is_empty())
        .map(indentation)
        .min();
    let lines: Vec<_> = lines()
        .map(|line| line.get(shared.unwrap_or(0)..).unwrap_or(""))
        .collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

fn part(attr: &Attribute) -> Option<&Expr> {
    match &attr.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => Some(ungroup(&meta.value)),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(without_stars(text.value())),
        _ => None,
    }
}

/// Returns the text of a comment without the star with which each line of a block but its first begins by custom, all in one
/// column. Rustdoc leaves them out too. Without a space before them, as in an attribute, they are the text's own.
fn without_stars(text: String) -> String {
    let mut lines = text.split('\n');
    let mut cleaned = lines.next().unwrap_or("").to_owned();
    let mut column = None;
    for line in lines {
        cleaned.push('\n');
        let rest = line.trim_start();
        let indentation = line.len() - rest.len();
        match rest.strip_prefix('*') {
            Some(rest) if indentation > 0 && *column.get_or_insert(indentation) == indentation => {
                cleaned.push_str(rest);
            }
            None if rest.is_empty() => {}
            _ => return text,
        }
    }
    cleaned
}

/// Removes the invisible parentheses that macros leave.
fn ungroup(expr: &Expr) -> &Expr {
    match expr {
        Expr::Group(group) => ungroup(&group.expr),
        _ => expr,
    }
}

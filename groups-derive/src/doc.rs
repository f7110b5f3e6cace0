use syn::{Attribute, Expr, ExprLit, Lit, LitStr, Meta};

/// Returns the doc comment, without the indentation that all its lines share.
pub(crate) fn doc(attrs: &[Attribute]) -> String {
    let text: Vec<String> = attrs.iter().filter_map(text).collect();
    let text = text.join("\n");
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

fn text(attr: &Attribute) -> Option<String> {
    match &attr.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => {
            literal(&meta.value).map(LitStr::value)
        }
        _ => None,
    }
}

/// Returns the string literal, also within the invisible parentheses that macros leave.
fn literal(expr: &Expr) -> Option<&LitStr> {
    match expr {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text),
        Expr::Group(group) => literal(&group.expr),
        _ => None,
    }
}

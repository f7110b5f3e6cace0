//! The keys that exist. Each is declared once, with its value and an example of its use.

use proc_macro2::Ident;
use syn::parse::ParseStream;
use syn::{ExprPath, LitStr, Path, WherePredicate};

use crate::attr::{Key, group_id};
use crate::case::Rule;
use crate::ctxt::Ctxt;
use crate::value::{bound, flag, path, rule, string};

/// The attributes of one place, with a field for each key.
pub(crate) trait Attrs: Default {
    const KEYS: Keys;

    /// Reads the value of `key`, which is one of `KEYS`.
    fn read_key(&mut self, ctxt: &mut Ctxt, key: &Ident, input: ParseStream<'_>);

    /// Returns the keys that were given.
    fn given(&self) -> impl Iterator<Item = &Ident>;
}

/// The keys of one place.
pub(crate) struct Keys {
    pub(crate) place: &'static str,
    /// Each key's name and an example of its use.
    pub(crate) keys: &'static [(&'static str, &'static str)],
}

impl Keys {
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|(name, _)| *name)
    }

    pub(crate) fn usage(&self, key: &str) -> Option<&'static str> {
        let found = self.keys.iter().find(|(name, _)| *name == key);
        found.map(|(_, usage)| *usage)
    }
}

/// Declares the keys of one place: `field: Type = reader, "example of use";`.
///
/// The key has the field's name, unless `as` gives it another one. The reader is a function that
/// reads the key's value.
macro_rules! keys {
    (
        $attrs:ident, $place:literal:
        $($field:ident $(as $name:literal)?: $ty:ty = $read:ident, $usage:literal;)*
    ) => {
        #[doc = concat!("The keys ", $place, ".")]
        #[derive(Default)]
        pub(crate) struct $attrs {
            $(pub(crate) $field: Key<$ty>,)*
        }

        impl Attrs for $attrs {
            const KEYS: Keys = Keys {
                place: $place,
                keys: &[$((name!($field $($name)?), $usage),)*],
            };

            fn read_key(&mut self, ctxt: &mut Ctxt, key: &Ident, input: ParseStream<'_>) {
                match key.to_string().as_str() {
                    $(name!($field $($name)?) => {
                        let value = $read(ctxt, key, input);
                        self.$field.set(ctxt, key, value);
                    })*
                    _ => {}
                }
            }

            fn given(&self) -> impl Iterator<Item = &Ident> {
                [$(self.$field.ident()),*].into_iter().flatten()
            }
        }
    };
}

/// Expands to the name of a key.
macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

keys! {
    StructAttrs, "on the struct":
    group_key: LitStr = string, r#"group_key = "company""#;
    rename_all: Rule = rule, r#"rename_all = "camelCase""#;
    unset_none: () = flag, "unset_none";
    serde: () = flag, "serde";
    krate as "crate": Path = path, "crate = path::to::mixpanel_groups";
    bound: Vec<WherePredicate> = bound, r#"bound = "T: serde::Serialize""#;
}

keys! {
    FieldAttrs, "on a field":
    group_id: IdAttrs = group_id, "group_id";
    company_id: () = flag, "company_id";
    set_once: () = flag, "set_once";
    union: () = flag, "union";
    rename: LitStr = string, r#"rename = "Seats Purchased""#;
    skip: () = flag, "skip";
    skip_if: ExprPath = path, r#"skip_if = "path::to::function""#;
    with: ExprPath = path, r#"with = "path::to::function""#;
    flatten: () = flag, "flatten";
    unset_none: () = flag, "unset_none";
}

keys! {
    IdAttrs, "inside `group_id(…)`":
    prefix: LitStr = string, r#"group_id(prefix = "company_")"#;
    with: ExprPath = path, r#"group_id(with = "path::to::function")"#;
}

pub(crate) const PLACES: [Keys; 3] = [StructAttrs::KEYS, FieldAttrs::KEYS, IdAttrs::KEYS];

/// Returns an example of the key's use.
pub(crate) fn usage(key: &str) -> &'static str {
    PLACES.iter().find_map(|keys| keys.usage(key)).unwrap_or("")
}

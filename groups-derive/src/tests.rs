//! The derive as a function of tokens: what it makes of typical structs, and that it never panics.

use std::path::Path;
use std::{env, fs};

use proc_macro2::TokenStream;
use syn::{Item, ItemImpl};

use crate::derive_group;
use crate::keys::PLACES;

/// The impls, and how many mistakes were reported.
fn derive(input: &str) -> (Vec<ItemImpl>, usize) {
    let input: TokenStream = input
        .parse()
        .unwrap_or_else(|_| panic!("no tokens: {input}"));
    let output = derive_group(input.clone());
    let file: syn::File =
        syn::parse2(output).unwrap_or_else(|error| panic!("{error} in what becomes of\n{input}"));
    let mut impls = Vec::new();
    let mut mistakes = 0;
    for item in file.items {
        match item {
            Item::Impl(item) => impls.push(item),
            Item::Macro(_) => mistakes += 1,
            _ => panic!("neither an impl nor a mistake"),
        }
    }
    (impls, mistakes)
}

/// `BLESS=1 cargo test -p mixpanel-groups-derive` writes the snapshots anew.
#[test]
fn typical_structs_expand_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/expand");
    for name in ["company", "generic", "wide"] {
        let input = fs::read_to_string(folder.join(name).with_extension("rs")).unwrap();
        let input: TokenStream = input.parse().unwrap();
        let file = syn::parse2(derive_group(input)).unwrap();
        let expanded = prettyplease::unparse(&file);
        let snapshot = folder.join(name).with_extension("expanded.rs");
        if env::var_os("BLESS").is_some() {
            fs::write(&snapshot, &expanded).unwrap();
        }
        let recorded = fs::read_to_string(&snapshot).unwrap_or_default();
        assert_eq!(expanded, recorded, "{}", snapshot.display());
    }
}

/// Every key that is known has a row in the documentation's tables.
#[test]
fn every_key_is_documented() {
    let page = include_str!("../derive.md");
    for keys in PLACES {
        for (name, usage) in keys.keys {
            let is_documented = page.lines().any(|line| {
                let in_table = line.starts_with('|') && line.contains(&format!("`{name}"));
                in_table || line.contains(&format!("`{usage}`"))
            });
            assert!(is_documented, "`{name}` {} is not in derive.md", keys.place);
        }
    }
}

/// Every key that is known is read where it is used as its example says.
#[test]
fn every_key_is_read() {
    for keys in PLACES {
        for (name, usage) in keys.keys {
            let is_of_struct = keys.place == "on the struct";
            let (of_struct, of_field) = if is_of_struct {
                (*usage, "")
            } else {
                ("", *usage)
            };
            let of_struct = if *name == "group_key" { "" } else { of_struct };
            let is_id = usage.starts_with("group_id");
            let id = if is_id { usage } else { "group_id" };
            let of_field = if is_id { "" } else { of_field };
            let (impls, mistakes) = derive(&format!(
                "#[mixpanel(group_key = \"company\", {of_struct})] struct Company {{
                    #[mixpanel({id})] id: u64,
                    #[mixpanel({of_field})] tags: Vec<u8>,
                }}"
            ));
            assert_eq!(mistakes, 0, "`{usage}` {}", keys.place);
            assert!(!impls.is_empty());
            // A value of another kind is noticed by whoever reads it.
            let of_another_kind = format!("{name} = [7]");
            let (of_struct, of_field) = if is_of_struct {
                (of_another_kind.as_str(), "")
            } else {
                ("", of_another_kind.as_str())
            };
            let inner = format!("group_id({of_another_kind})");
            let id = if keys.place.starts_with("inside") {
                &inner
            } else {
                "group_id"
            };
            let of_field = if keys.place.starts_with("inside") {
                ""
            } else {
                of_field
            };
            let (_, mistakes) = derive(&format!(
                "#[mixpanel(group_key = \"company\", {of_struct})] struct Company {{
                    #[mixpanel({id})] id: u64,
                    #[mixpanel({of_field})] tags: Vec<u8>,
                }}"
            ));
            assert!(
                mistakes > 0,
                "`{of_another_kind}` {} is passed over",
                keys.place
            );
        }
    }
}

/// A reproducible source of choices (xorshift).
struct Choices(u64);

impl Choices {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.next(all.len())]
    }

    fn some(&mut self, most: usize, separator: &str, one: impl Fn(&mut Self) -> String) -> String {
        let count = self.next(most + 1);
        let all: Vec<_> = (0..count).map(|_| one(self)).collect();
        all.join(separator)
    }

    fn attribute(&mut self, keys: &[&str]) -> String {
        let name = self.of(&["mixpanel", "mixpanel", "mixpanel", "serde", "doc"]);
        let keys = self.some(3, ", ", |choices| choices.key(keys));
        match self.next(20) {
            0 => format!("#[{name}]"),
            1 => format!("#[{name} = \"text\"]"),
            2 => format!("#[{name}[{keys}]]"),
            3 => format!("#[{name}({keys},)]"),
            _ => format!("#[{name}({keys})]"),
        }
    }

    fn key(&mut self, keys: &[&str]) -> String {
        const OTHERS: [&str; 10] = [
            "grup_id", "r#union", "self", "prefix", "a::b", "\"text\"", "7", "école", "_", "=",
        ];
        const VALUES: [&str; 22] = [
            "",
            "",
            "",
            "",
            " = \"\"",
            " = \"text\"",
            " = \"camelCase\"",
            " = \"a::b\"",
            " = \"<T as U>::f\"",
            " = \"T: Clone\"",
            " = \"é\\u{0}\\\"\"",
            " = path::to",
            " = 7",
            " = -1.5",
            " = [1, 2]",
            " = { a }",
            " =",
            "(prefix = \"p\")",
            "(with = \"f\", with)",
            "(serialize = \"s\", deserialize = \"d\")",
            "(",
            "()",
        ];
        let key = match self.next(6) {
            0 => self.of(&OTHERS),
            _ => self.of(keys),
        };
        let value = match self.of(&VALUES) {
            "(" => format!(
                "({})",
                self.some(2, ", ", |choices| choices.key(&["prefix", "with"]))
            ),
            value => value.to_owned(),
        };
        format!("{key}{value}")
    }

    fn item(&mut self) -> String {
        const OF_STRUCT: [&str; 9] = [
            "group_key = \"company\"",
            "group_key",
            "rename_all",
            "unset_none",
            "serde",
            "crate",
            "bound",
            "rename_all = \"PascalCase\"",
            "serde",
        ];
        const GENERICS: [&str; 6] = [
            "",
            "",
            "<T>",
            "<'a, T: ?Sized + 'a = str>",
            "<const N: usize = 3>",
            "<'a, T, U, S>",
        ];
        const WHERE: [&str; 4] = ["", "", "where T: Clone", "where"];
        let attributes = self.some(3, " ", |choices| choices.attribute(&OF_STRUCT));
        let name = self.of(&["Company", "r#struct", "Été", "__"]);
        let generics = self.of(&GENERICS);
        let bounds = self.of(&WHERE);
        let fields = self.some(6, ", ", Self::field);
        match self.next(24) {
            // Half of them with all that is needed, so that what is wrong is the rest, if anything.
            12.. => {
                let valid = self.some(3, "", Self::valid_field);
                let mistake = self.next(2) * self.next(2);
                let fields = if mistake == 0 { String::new() } else { fields };
                format!(
                    "#[mixpanel(group_key = \"company\")] struct {name} {generics} {{
                        #[mixpanel(group_id)] id: u8, {valid} {fields} }}"
                )
            }
            0 => format!("{attributes} enum {name} {generics} {bounds} {{ A, B(u8) }}"),
            1 => format!("{attributes} union {name} {generics} {bounds} {{ a: u8 }}"),
            2 => format!("{attributes} struct {name} {generics} (u8, T) {bounds};"),
            3 => format!("{attributes} struct {name} {generics} {bounds};"),
            _ => format!("{attributes} pub struct {name} {generics} {bounds} {{ {fields} }}"),
        }
    }

    fn valid_field(&mut self) -> String {
        const VALID: [&str; 8] = [
            "set_once",
            "union",
            "rename = \"New Name\"",
            "skip",
            "skip_if = is_zero",
            "with = \"text\"",
            "flatten",
            "unset_none",
        ];
        let key = self.of(&VALID);
        let name = self.of(&["école", "__", "r#type", "été_À_"]);
        let ty = self.of(&["u8", "Vec<Option<Box<T>>>", "&'a T", "T::Item"]);
        format!("#[mixpanel({key})] {name}: {ty},")
    }

    fn field(&mut self) -> String {
        const OF_FIELD: [&str; 17] = [
            "group_id",
            "group_id",
            "company_id",
            "set_once",
            "union",
            "rename",
            "rename",
            "rename = \"\"",
            "skip",
            "skip_if",
            "with",
            "flatten",
            "unset_none",
            "serialize_with",
            "skip_serializing_if",
            "skip_serializing",
            "default",
        ];
        const NAMES: [&str; 12] = [
            "id",
            "name",
            "école",
            "__",
            "_a",
            "a_",
            "r#type",
            "r#match",
            "été_À_",
            "名",
            "a__b",
            "ñ",
        ];
        const TYPES: [&str; 18] = [
            "u8",
            "String",
            "Option<String>",
            "Option",
            "T",
            "T::Item",
            "<T as U>::Item",
            "&'a T",
            "&'a [T]",
            "[T; N]",
            "(T, U)",
            "PhantomData<T>",
            "fn(T) -> U",
            "dyn Fn(T) -> U",
            "!",
            "Vec<Option<Box<dyn A<B = T>>>>",
            "*const T",
            "m!(T)",
        ];
        let attributes = self.some(3, " ", |choices| choices.attribute(&OF_FIELD));
        let name = self.of(&NAMES);
        let ty = self.of(&TYPES);
        format!("{attributes} {name}: {ty}")
    }
}

#[test]
fn nothing_makes_it_panic() {
    let mut good = 0;
    for seed in 1..=3_000 {
        let mut choices = Choices(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15));
        let item = choices.item();
        let (impls, mistakes) = derive(&item);
        let is_ours = |item: &&ItemImpl| {
            let (path, _) = item.trait_.as_ref().expect("a trait's impl");
            path.segments
                .last()
                .is_some_and(|last| last.ident == "MixpanelGroup")
        };
        assert_eq!(
            impls.iter().filter(is_ours).count(),
            1,
            "an impl for {item}"
        );
        good += usize::from(mistakes == 0);
    }
    assert!((500..2_500).contains(&good), "{good} had no mistake");
}

/// Whatever is no item at all, the compiler reports before us; still, it must not make us panic.
#[test]
fn any_tokens_are_read() {
    for input in [
        "",
        "struct",
        "fn f() {}",
        "struct A { a: }",
        "#[mixpanel(] struct A;",
        "1 + 1",
    ] {
        if let Ok(tokens) = input.parse() {
            assert!(
                derive_group(tokens).to_string().contains("compile_error"),
                "{input}"
            );
        }
    }
}

//! Tests of the derive as a function of tokens: what typical structs expand to, and that no input
//! makes it panic.

use std::io::Write as _;
use std::path::Path;
use std::{env, fs};

use proc_macro2::TokenStream;
use syn::{Item, ItemImpl, parse_quote};

use crate::attr::read_mixpanel;
use crate::ctxt::Ctxt;
use crate::derive_group;
use crate::keys::{Attrs, FieldAttrs, IdAttrs, Keys, StructAttrs};

/// Returns the impls and the number of reported mistakes.
fn derive(input: &str) -> (Vec<ItemImpl>, usize) {
    let input: TokenStream = input
        .parse()
        .unwrap_or_else(|_| panic!("not tokens: {input}"));
    let output = derive_group(input.clone());
    let file: syn::File =
        syn::parse2(output).unwrap_or_else(|error| panic!("{error} in the expansion of\n{input}"));
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

/// `BLESS=1 cargo test -p mixpanel-groups-derive` rewrites the snapshots.
#[test]
fn typical_structs_expand_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/expand");
    if !folder.exists() {
        // Past the harness, which keeps what a test that passes prints.
        let line = "\nSKIPPED what structs expand to: the records are in the repository, not in the package\n";
        return std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
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

/// Reads `#[mixpanel(…)]`, which must not have a mistake.
fn read<A: Attrs>(usage: &str) -> A {
    let usage: TokenStream = usage.parse().unwrap();
    let mut ctxt = Ctxt::default();
    let read = read_mixpanel(&mut ctxt, &[parse_quote!(#[mixpanel(#usage)])]);
    let mistakes = ctxt.into_error().map(|error| error.to_string());
    assert_eq!(mistakes, None, "{usage}");
    read
}

#[test]
fn each_key_is_read_as_its_example_shows() {
    for (name, usage) in StructAttrs::KEYS.keys {
        let read: StructAttrs = read(usage);
        assert!(read.given().eq([name]), "{usage}");
    }
    for (name, usage) in FieldAttrs::KEYS.keys {
        let read: FieldAttrs = read(usage);
        assert!(read.given().eq([name]), "{usage}");
    }
    for (name, usage) in IdAttrs::KEYS.keys {
        let read: FieldAttrs = read(usage);
        let id = read.group_id.value().expect(usage);
        assert!(id.given().eq([name]), "{usage}");
    }
}

#[test]
fn each_key_is_documented() {
    let docs = include_str!("../derive.md");
    let rows = |title| {
        let (_, section) = docs.split_once(title).expect(title);
        let (section, _) = section.split_once("\n# ").expect("another section");
        let rows = section.lines().filter_map(|row| row.strip_prefix("| [`"));
        rows.filter_map(|row| row.split([' ', '`']).next())
    };
    let of_struct: Vec<_> = rows("# On the struct").collect();
    let (of_group_id, of_field): (Vec<_>, Vec<_>) =
        rows("# On a field").partition(|name| name.starts_with("group_id("));
    let of_group_id: Vec<_> = of_group_id
        .iter()
        .map(|name| &name["group_id(".len()..])
        .collect();
    let names = |keys: Keys| keys.names().collect::<Vec<_>>();
    assert_eq!(of_struct, names(StructAttrs::KEYS));
    assert_eq!(of_field, names(FieldAttrs::KEYS));
    assert_eq!(of_group_id, names(IdAttrs::KEYS));
    for name in of_struct.iter().chain(&of_field) {
        let heading = format!("## `{name}`");
        assert!(docs.lines().any(|line| line == heading), "{name}");
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
        const GENERICS: [&str; 6] = [
            "",
            "",
            "<T>",
            "<'a, T: ?Sized + 'a = str>",
            "<const N: usize = 3>",
            "<'a, T, U, S>",
        ];
        const WHERE: [&str; 4] = ["", "", "where T: Clone", "where"];
        let mut keys = vec![
            "group_key = \"company\"",
            "rename_all = \"PascalCase\"",
            "serde",
        ];
        keys.extend(StructAttrs::KEYS.names());
        let attributes = self.some(3, " ", |choices| choices.attribute(&keys));
        let name = self.of(&["Company", "r#struct", "Été", "__"]);
        let generics = self.of(&GENERICS);
        let bounds = self.of(&WHERE);
        let fields = self.some(6, ", ", Self::field);
        match self.next(24) {
            // Half of the structs have all that is needed, so only the rest can be wrong.
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
        let usages = FieldAttrs::KEYS.keys.iter().map(|(_, usage)| *usage);
        let valid: Vec<_> = usages.filter(|usage| !usage.ends_with("_id")).collect();
        let key = self.of(&valid);
        let name = self.of(&["école", "__", "r#type", "été_À_"]);
        let ty = self.of(&["u8", "Vec<Option<Box<T>>>", "&'a T", "T::Item"]);
        format!("#[mixpanel({key})] {name}: {ty},")
    }

    fn field(&mut self) -> String {
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
        let mut keys = vec![
            "group_id",
            "rename",
            "rename = \"\"",
            "serialize_with",
            "skip_serializing_if",
            "skip_serializing",
            "default",
        ];
        keys.extend(FieldAttrs::KEYS.names());
        let attributes = self.some(3, " ", |choices| choices.attribute(&keys));
        let name = self.of(&NAMES);
        let ty = self.of(&TYPES);
        format!("{attributes} {name}: {ty}")
    }
}

#[test]
fn no_input_makes_it_panic() {
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
    assert!((500..2_500).contains(&good), "{good} without a mistake");
}

/// The compiler rejects these before it calls the derive, but the derive must not panic either.
#[test]
fn tokens_that_are_not_an_item_are_an_error() {
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

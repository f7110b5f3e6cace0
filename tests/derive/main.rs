//! The derive: what it generates, what it is called, and that it fits into any crate.
//!
//! Compile-fail cases are in `tests/ui`, generated code as text in `tests/expand`, and crates that have the library by
//! another name in `tests/hygiene`.

mod attributes;
mod careless;
mod changes;
mod flattened;
pub mod hygiene_lints; // `pub`, as some lints look at a crate's interface alone.
mod hygiene_names;
mod hygiene_prelude;
mod names;
mod reference_page;
mod serde_attributes;
mod shapes;

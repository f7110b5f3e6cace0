//! Prints the public interface that a file of rustdoc's JSON describes, a line an item.

use std::env;
use std::error::Error;

use public_api::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let json = env::args_os().nth(1).ok_or("which file of JSON?")?;
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .build()?;
    print!("{api}");
    Ok(())
}

//! Prints the tracking plan that a struct is: its properties as a Markdown table.
//!
//! ```sh
//! cargo run --example tracking_plan > tracking-plan.md
//! ```
//!
//! The table has a row for each property: its name in Mixpanel, the operation that sends it, the struct's
//! field and its doc comment.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use mixpanel_groups::MixpanelGroup;

/// A customer, as the billing system knows it.
#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company", rename_all = "PascalCase")]
#[expect(dead_code, reason = "only the plan is of interest here")]
struct Company {
    #[mixpanel(group_id(prefix = "company_"))]
    id: u64,
    /// The name that Mixpanel shows for the group.
    #[mixpanel(rename = "$name")]
    name: String,
    /// `free` | `team` | `enterprise`
    plan: String,
    /// Left out where it is not known.
    industry: Option<String>,
    /// Kept from the first time it is sent.
    #[mixpanel(set_once)]
    founding_year: u16,
    /// Other products that the company connected,
    /// each of them once.
    #[mixpanel(union)]
    integrations: Vec<String>,
    #[mixpanel(rename = "Seats Purchased")]
    seats: u32,
    #[mixpanel(skip)]
    password_hash: String,
}

/// The properties of a struct as a Markdown table.
struct TrackingPlan<T>(PhantomData<T>);

impl<T: MixpanelGroup> Display for TrackingPlan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Group key `{}`\n", T::GROUP_KEY)?;
        writeln!(f, "| property | operation | field | meaning |")?;
        writeln!(f, "|---|---|---|---|")?;
        for property in T::PROPERTIES {
            // A flattened field has no name of its own: its value's fields are the properties.
            let name = match property.name {
                "" => "*(its own)*".to_owned(),
                name => cell(name),
            };
            let operation = property.operation;
            let field = property.field;
            let doc = cell(property.doc);
            writeln!(f, "| {name} | `{operation}` | `{field}` | {doc} |")?;
        }
        Ok(())
    }
}

/// Text on one line, in which no `|` ends the cell.
fn cell(text: &str) -> String {
    text.replace('|', r"\|").replace('\n', " ")
}

fn main() {
    print!("{}", TrackingPlan::<Company>(PhantomData));
}

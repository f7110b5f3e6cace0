//! Rows and updates that are committed together, with Diesel, and a relay that sends the updates.
//!
//! ```sh
//! DATABASE_URL=postgres://user@localhost/scratch cargo run --example diesel
//! ```
//!
//! It creates the tables of the outbox and a table `example_company` in the schema `public` of that database. Mixpanel is
//! a stand-in on a loopback port, or with `MIXPANEL_TOKEN` set the real one.

use std::error::Error;
use std::time::Duration;

use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use mixpanel_groups::{Client, MixpanelGroup};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_postgres::PostgresOutbox;

diesel::table! {
    example_company (id) {
        id -> Text,
        plan -> Text,
        seats -> Integer,
    }
}

/// One struct for the row and for the group.
#[derive(Insertable, AsChangeset, MixpanelGroup)]
#[diesel(table_name = example_company)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    plan: String,
    seats: i32,
}

/// Writes the row and publishes the update: both, or neither. Its error can cross threads, as `spawn_blocking` of an
/// async program demands.
fn save(
    connection: &mut PgConnection,
    outbox: &PostgresOutbox,
    company: &Company,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    connection.transaction(|connection| {
        diesel::insert_into(example_company::table)
            .values(company)
            .on_conflict(example_company::id)
            .do_update()
            .set(company)
            .execute(connection)?;
        // Last, since other transactions that publish for this company wait from here to the commit.
        outbox.publish_in(connection, company.set())?;
        if company.seats < 1 {
            return Err("a company has at least one seat".into()); // Rolls both back.
        }
        Ok(())
    })
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL to a database")?;
    let emulator = Emulator::start()?;
    let client = if std::env::var_os("MIXPANEL_TOKEN").is_some() {
        Client::from_env()?
    } else {
        Client::builder("PROJECT_TOKEN")
            .endpoint(emulator.endpoint())
            .build()?
    };

    let pool = Pool::builder().build(ConnectionManager::<PgConnection>::new(&url))?;
    let mut connection = pool.get()?;
    diesel::sql_query(
        "CREATE TABLE IF NOT EXISTS example_company (id text PRIMARY KEY, plan text NOT NULL, seats int NOT NULL)",
    )
    .execute(&mut connection)?;
    // The outbox has connections of its own, to relay. For TLS, see the README of mixpanel-groups-postgres.
    let outbox = PostgresOutbox::new(url.parse()?, postgres::NoTls)?;
    outbox.migrate()?;

    let company = |id: &str, plan: &str, seats| Company {
        id: id.to_owned(),
        plan: plan.to_owned(),
        seats,
    };
    save(&mut connection, &outbox, &company("acme", "free", 3))?;
    save(&mut connection, &outbox, &company("acme", "enterprise", 40))?;
    save(&mut connection, &outbox, &company("globex", "free", 1))?;
    let refused = save(
        &mut connection,
        &outbox,
        &company("globex", "enterprise", 0),
    );
    println!("rolled back: {}", refused.unwrap_err());

    // In this process or in another one.
    let relay = client.buffered().outbox(outbox).start()?;
    println!("{}", relay.shutdown(Duration::from_secs(10)));
    for ((key, id), profile) in emulator.profiles() {
        println!("{key} {id}: {}", serde_json::to_string(&profile)?);
    }
    Ok(())
}

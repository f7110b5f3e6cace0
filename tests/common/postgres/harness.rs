//! A schema of its own for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use mixpanel_groups::outbox::{Capacity, OutboxEntry};
use mixpanel_groups::{EncodedUpdate, Group, Outbox, Update};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::{Client, Config, NoTls};
use serde_json::json;

use super::server::server;

pub const NO_LIMIT: Capacity = Capacity::new(usize::MAX, usize::MAX);

/// An empty outbox, and the way to more of it.
pub struct Harness {
    pub config: Config,
    pub schema: String,
    pub outbox: PostgresOutbox,
}

impl Harness {
    /// Nothing, if there is no server.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let config = server()?;
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("test_{}_{next}", std::process::id());
        let mut client = config.connect(NoTls).unwrap();
        client
            .batch_execute(&format!(
                "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}"
            ))
            .unwrap();
        let outbox = outbox(&config, &schema);
        outbox.migrate().unwrap();
        Some(Self {
            config,
            schema,
            outbox,
        })
    }

    /// The same outbox as another process sees it.
    pub fn another(&self) -> PostgresOutbox {
        outbox(&self.config, &self.schema)
    }

    /// A connection that finds the outbox's tables without their schema.
    pub fn client(&self) -> Client {
        let mut client = self.config.connect(NoTls).unwrap();
        client
            .batch_execute(&format!("SET search_path = {}", self.schema))
            .unwrap();
        client
    }

    pub fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.client().query_one(&sql, &[]).unwrap().get(0)
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        let sql = format!("DROP SCHEMA {} CASCADE", self.schema);
        if let Ok(mut client) = self.config.connect(NoTls) {
            // What is left of a test that failed is of no use, and no reason to fail again.
            drop(client.batch_execute(&sql));
        }
    }
}

pub fn outbox(config: &Config, schema: &str) -> PostgresOutbox {
    PostgresOutbox::builder(config.clone(), NoTls)
        .schema(schema)
        .build()
        .unwrap()
}

pub fn seats(group: &str, seats: u64) -> Update<'static> {
    Group::new("company", group.to_owned()).set(json!({"seats": seats}))
}

pub fn stored(group: &str, number: u64) -> EncodedUpdate {
    encoded(&seats(group, number))
}

pub fn encoded(update: &Update<'_>) -> EncodedUpdate {
    EncodedUpdate::new(update).unwrap().unwrap()
}

/// Group and number of each update.
pub fn read(waiting: &[OutboxEntry]) -> Vec<(String, u64)> {
    waiting
        .iter()
        .map(|waiting| {
            let json = waiting.json();
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            let group = json["$group_id"].as_str().unwrap().to_owned();
            (group, json["$set"]["seats"].as_u64().unwrap())
        })
        .collect()
}

pub fn ids(waiting: &[OutboxEntry]) -> Vec<i64> {
    waiting.iter().map(|waiting| waiting.id).collect()
}

/// Takes and settles all that can be taken.
pub fn drain(outbox: &PostgresOutbox) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    loop {
        let taken = outbox.take(1000).unwrap();
        if taken.is_empty() {
            return all;
        }
        outbox.settle(&ids(&taken), &[]).unwrap();
        outbox.release().unwrap();
        all.extend(read(&taken));
    }
}

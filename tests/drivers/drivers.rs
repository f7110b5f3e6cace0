//! Publishing in a transaction of each driver: it is sent if the transaction commits, and not if it rolls back.
//!
//! The calls are those of the guide's page "With Diesel, sqlx and others".

use std::error::Error;
use std::sync::Barrier;
use std::thread;

use mixpanel_groups::{EncodedUpdate, ErrorKind};
use mixpanel_groups_postgres::PostgresOutbox;

use common::postgres::{Harness, drain, seats, stored};

/// The URL of the server, with the schema of the outbox in the path.
fn url(harness: &Harness) -> String {
    let (config, schema) = (&harness.config, &harness.schema);
    let postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else {
        panic!("a server on TCP");
    };
    let (user, port) = (config.get_user().unwrap(), config.get_ports()[0]);
    let database = config.get_dbname().unwrap();
    format!("postgres://{user}@{host}:{port}/{database}?options=-c%20search_path%3D{schema}")
}

/// What each test has published: 1 and 3 in transactions that committed, 2 in one that rolled back.
fn assert_sent(harness: &Harness) {
    let sent = drain(&harness.outbox);
    assert_eq!(sent, [("acme".to_owned(), 1), ("acme".to_owned(), 3)]);
}

fn run(future: impl Future<Output = Result<(), Box<dyn Error + Send + Sync>>>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
        .unwrap();
}

#[test]
fn diesel() {
    use diesel::prelude::*;
    use diesel::r2d2::{ConnectionManager, Pool};

    /// An update, and then a rollback if that is wanted.
    fn transact(
        outbox: &PostgresOutbox,
        connection: &mut PgConnection,
        number: u64,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        connection.transaction(|connection| {
            diesel::sql_query("UPDATE company SET seats = seats + 1").execute(connection)?;
            outbox.publish_in(connection, seats("acme", number))?;
            if number == 2 {
                Err("rolled back".into())
            } else {
                Ok(())
            }
        })
    }

    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = &harness.outbox;
    let mut connection = PgConnection::establish(&url(&harness)).unwrap();
    diesel::sql_query("CREATE TABLE company (seats int)")
        .execute(&mut connection)
        .unwrap();
    transact(outbox, &mut connection, 1).unwrap();
    transact(outbox, &mut connection, 2).unwrap_err();

    let manager = ConnectionManager::<PgConnection>::new(url(&harness));
    let pool = Pool::builder().max_size(2).build(manager).unwrap();
    // In an async program.
    run(async {
        let (pool, outbox) = (pool.clone(), outbox.clone());
        tokio::task::spawn_blocking(move || {
            let mut connection = pool.get()?;
            transact(&outbox, &mut connection, 3)
        })
        .await??;
        Ok(())
    });
    let mut pooled = pool.get().unwrap();
    // A pooled connection as such, outside a transaction and inside; text beyond ASCII.
    outbox.publish_in(&mut pooled, seats("é", 4)).unwrap();
    let published = pooled.transaction(|pooled| {
        outbox
            .publish_all_in(pooled, [seats("é", 5), seats("é 🦀", 6)])
            .map_err(Box::<dyn Error>::from)
    });
    assert_eq!(published.unwrap(), 2);
    let invalid = outbox.publish_in(&mut pooled, seats("", 7)).unwrap_err();
    assert_eq!(invalid.kind(), ErrorKind::InvalidUpdate);

    // The transaction with the deleted slots is rolled back.
    let failed = pooled.transaction(|pooled| -> Result<(), Box<dyn Error>> {
        diesel::sql_query("DELETE FROM mixpanel_outbox_slot").execute(pooled)?;
        let failed = outbox.publish_in(pooled, seats("acme", 8)).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Damaged, "{failed:#}");
        Err(failed.into())
    });
    failed.unwrap_err();

    let sent = drain(outbox);
    assert_eq!(sent[..2], [("acme".to_owned(), 1), ("acme".to_owned(), 3)]);
    let expected = [("é", 4), ("é", 5), ("é 🦀", 6)];
    assert_eq!(
        sent[2..],
        expected.map(|(group, number)| (group.to_owned(), number))
    );
}

/// Diesel does not return the code of a deadlock. The guide says what is left to recognize it by.
#[test]
fn diesel_and_a_deadlock() {
    use diesel::prelude::*;
    use diesel::result::{DatabaseErrorKind, Error as DieselError};

    let Some(harness) = Harness::new() else {
        return;
    };
    let both_have_one = Barrier::new(2);
    let publish = |groups: [&'static str; 2]| {
        let mut connection = PgConnection::establish(&url(&harness)).unwrap();
        diesel::sql_query("SET deadlock_timeout = '100ms'")
            .execute(&mut connection)
            .unwrap();
        connection.transaction(|connection| {
            harness.outbox.publish_in(connection, seats(groups[0], 1))?;
            both_have_one.wait();
            harness.outbox.publish_in(connection, seats(groups[1], 1))?;
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        })
    };
    let ended = thread::scope(|scope| {
        let threads = [["a", "b"], ["b", "a"]].map(|groups| scope.spawn(move || publish(groups)));
        threads.map(|thread| thread.join().unwrap())
    });
    let [error] = &ended
        .into_iter()
        .filter_map(Result::err)
        .collect::<Vec<_>>()[..]
    else {
        panic!("one of both ends by the deadlock");
    };
    let cause = error.source().unwrap().downcast_ref::<DieselError>();
    let Some(DieselError::DatabaseError(DatabaseErrorKind::Unknown, about)) = cause else {
        panic!("{cause:?}");
    };
    assert_eq!(about.message(), "deadlock detected");
}

#[test]
fn diesel_async() {
    use diesel::result::Error as DieselError;
    use diesel::sql_query;
    use diesel::sql_types::Text;
    use diesel_async::scoped_futures::ScopedFutureExt as _;
    use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};

    let Some(harness) = Harness::new() else {
        return;
    };
    run(async {
        let mut connection = AsyncPgConnection::establish(&url(&harness)).await?;
        for number in 1..=3 {
            let update: EncodedUpdate = stored("acme", number);
            let ended = connection.transaction(|connection| {
                async move {
                    sql_query("SELECT mixpanel_outbox_publish($1)")
                        .bind::<Text, _>(update.as_json())
                        .execute(connection)
                        .await?;
                    if number == 2 {
                        return Err(DieselError::RollbackTransaction);
                    }
                    Ok(())
                }
                .scope_boxed()
            });
            assert_eq!(ended.await.is_err(), number == 2);
        }
        Ok(())
    });
    assert_sent(&harness);
}

#[test]
fn sqlx() {
    let Some(harness) = Harness::new() else {
        return;
    };
    run(async {
        let pool = sqlx::PgPool::connect(&url(&harness)).await?;
        for number in 1..=3 {
            let update: EncodedUpdate = stored("acme", number);
            let mut transaction = pool.begin().await?;
            sqlx::query("SELECT mixpanel_outbox_publish($1)")
                .bind(update.as_json())
                .execute(&mut *transaction)
                .await?;
            if number == 2 {
                transaction.rollback().await?;
            } else {
                transaction.commit().await?;
            }
        }
        Ok(())
    });
    assert_sent(&harness);
}

#[test]
fn sea_orm() {
    use sea_orm::{ConnectionTrait as _, Database, DbBackend, Statement, TransactionTrait as _};

    let Some(harness) = Harness::new() else {
        return;
    };
    run(async {
        let database = Database::connect(url(&harness)).await?;
        for number in 1..=3 {
            let update: EncodedUpdate = stored("acme", number);
            let transaction = database.begin().await?;
            let publish = "SELECT mixpanel_outbox_publish($1)";
            let values = [update.as_json().into()];
            let publish = Statement::from_sql_and_values(DbBackend::Postgres, publish, values);
            transaction.execute(publish).await?; // in SeaORM 2: `execute_raw`
            if number == 2 {
                transaction.rollback().await?;
            } else {
                transaction.commit().await?;
            }
        }
        Ok(())
    });
    assert_sent(&harness);
}

#[test]
fn tokio_postgres() {
    let Some(harness) = Harness::new() else {
        return;
    };
    run(async {
        let (mut client, connection) =
            tokio_postgres::connect(&url(&harness), tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        for number in 1..=3 {
            let update: EncodedUpdate = stored("acme", number);
            let transaction = client.transaction().await?;
            transaction
                .execute("SELECT mixpanel_outbox_publish($1)", &[&update.as_json()])
                .await?;
            // Many at once.
            let none: [&str; 0] = [];
            transaction
                .execute("SELECT mixpanel_outbox_publish($1::text[])", &[&&none[..]])
                .await?;
            if number == 2 {
                transaction.rollback().await?;
            } else {
                transaction.commit().await?;
            }
        }
        Ok(())
    });
    assert_sent(&harness);
}

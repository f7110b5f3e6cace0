//! The guide: one page for each question, in the order in which they come up.
//!
//! 1. [Getting started](getting_started): a project, a struct, a first update
//! 2. [Mapping your structs](mapping): names, `null` values, ids, dates, parts of a profile
//! 3. [Operations, and when to use which](operations): `$set`, `$set_once`, `$union` and the others
//! 4. [Keeping in sync](keeping_in_sync): sending only what changed
//! 5. [In a web server](in_a_web_server): publishing from handlers that must not wait
//! 6. [Durability and many machines](durability): what survives which crash, and an outbox of your own
//! 7. [Testing your code](testing): a stand-in for Mixpanel, with faults
//! 8. [Errors, and what to do about each](errors)
//! 9. [Migrating](migrating): from hand-written JSON, the Python SDK or mixpanel-rs
//! 10. [Questions that come up](faq): why nothing shows up in Mixpanel, for instance
//! 11. [In an async server](in_an_async_server): which calls wait, and what to do about it; metrics
//! 12. [With Diesel, sqlx and others](with_diesel_sqlx_and_others): publishing in a transaction of your own
//! 13. [Proxies, certificates and firewalls](proxies_certificates_and_firewalls): what lies between your program and Mixpanel
//! 14. [Order](order): what is promised, and what no client can promise
//! 15. [Linking users to groups](linking_users_to_groups): events that name a group, and with which credentials

macro_rules! pages {
    ($($name:ident = $file:literal),*) => {$(
        #[doc = include_str!(concat!("../guide/", $file, ".md"))]
        pub mod $name {}
    )*};
}

pages!(
    getting_started = "1_getting_started",
    mapping = "2_mapping",
    operations = "3_operations",
    keeping_in_sync = "4_keeping_in_sync",
    in_a_web_server = "5_in_a_web_server",
    durability = "6_durability",
    testing = "7_testing",
    errors = "8_errors",
    migrating = "9_migrating",
    faq = "10_faq",
    in_an_async_server = "11_in_an_async_server",
    with_diesel_sqlx_and_others = "12_with_diesel_sqlx_and_others",
    proxies_certificates_and_firewalls = "13_proxies_certificates_and_firewalls",
    order = "14_order",
    linking_users_to_groups = "15_linking_users_to_groups"
);

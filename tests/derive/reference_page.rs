//! Every example of Mixpanel's reference page for groups: derived structs and `Group` both say
//! what the page says, and the profiles become what the page describes.

use mixpanel_groups::{Client, Group, MixpanelGroup, Profile, Update};
use mixpanel_groups_emulator::Emulator;
use serde::Serialize;
use serde_json::{Value, json};

/// Sends both ways of writing an example's updates, each to a Mixpanel of its own where `before`
/// was sent, and compares what goes over the wire. Returns the profile's group's end.
fn both_say<'a>(
    before: &[Update<'_>],
    typed: impl IntoIterator<Item = Update<'a>>,
    untyped: impl IntoIterator<Item = Update<'a>>,
    page: &Value,
) -> Emulator {
    let from_typed = sent(before, typed.into_iter().collect());
    let from_untyped = sent(before, untyped.into_iter().collect());
    assert_eq!(from_typed.1, *page, "the derived struct");
    assert_eq!(from_untyped.1, *page, "the group");
    assert_eq!(from_typed.0.profiles(), from_untyped.0.profiles());
    from_typed.0
}

fn sent(before: &[Update<'_>], updates: Vec<Update<'_>>) -> (Emulator, Value) {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("YOUR_PROJECT_TOKEN")
        .endpoint(emulator.endpoint())
        .build()
        .unwrap();
    let sent_before = client.send(before).unwrap();
    assert_eq!(sent_before.rejected, []);
    let report = client.send(updates).unwrap();
    assert_eq!(report.rejected, []);
    let body = serde_json::from_str(&emulator.requests().last().unwrap().body).unwrap();
    (emulator, body)
}

fn profile(emulator: &Emulator, key: &str, id: &str) -> Profile {
    emulator.profile(key, id).unwrap_or_default()
}

const MIXPANEL: (&str, &str) = ("company", "mixpanel_inc");

fn mixpanel() -> Group<'static> {
    Group::new(MIXPANEL.0, MIXPANEL.1)
}

#[test]
fn set_group_property() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: &'static str,
        name: &'static str,
        industry: &'static str,
        employees: u32,
        plan: Plan,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Plan {
        Enterprise,
    }
    let company = Company {
        id: "mixpanel_inc",
        name: "Mixpanel Inc",
        industry: "Analytics",
        employees: 350,
        plan: Plan::Enterprise,
    };
    let properties = json!({
        "name": "Mixpanel Inc", "industry": "Analytics", "employees": 350, "plan": "enterprise",
    });
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "mixpanel_inc",
        "$set": {
            "name": "Mixpanel Inc", "industry": "Analytics", "employees": 350, "plan": "enterprise",
        },
    }]);
    let untyped = [mixpanel().set(&properties)];
    let emulator = both_say(&[], company.updates(), untyped, &page);
    // "Update or add properties to a group profile. Creates the group if it doesn't exist."
    assert_eq!(profile(&emulator, "company", "mixpanel_inc"), properties);
}

#[test]
fn set_group_property_once() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Origin {
        #[mixpanel(group_id)]
        id: String,
        #[mixpanel(set_once)]
        created_date: String,
        #[mixpanel(set_once)]
        founding_year: u16,
    }
    let origin = Origin {
        id: "mixpanel_inc".into(),
        created_date: "2024-01-01".into(),
        founding_year: 2009,
    };
    let properties = json!({"created_date": "2024-01-01", "founding_year": 2009});
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "mixpanel_inc",
        "$set_once": {"created_date": "2024-01-01", "founding_year": 2009},
    }]);
    let emulator = both_say(
        &[],
        origin.updates(),
        [mixpanel().set_once(&properties)],
        &page,
    );
    assert_eq!(profile(&emulator, "company", "mixpanel_inc"), properties);
    // "Set properties only if they don't already exist on the group."
    let before = [mixpanel().set(json!({"founding_year": 1999}))];
    let emulator = both_say(
        &before,
        origin.updates(),
        [mixpanel().set_once(&properties)],
        &page,
    );
    assert_eq!(
        profile(&emulator, "company", "mixpanel_inc"),
        json!({"created_date": "2024-01-01", "founding_year": 1999})
    );
}

/// A struct of the group alone: for the operations that take no properties from it.
#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: &'static str,
}

#[test]
fn delete_group_property() {
    let company = Company { id: "mixpanel_inc" };
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "mixpanel_inc",
        "$unset": ["temp_field", "old_data"],
    }]);
    let before = [mixpanel().set(json!({"temp_field": 1, "old_data": 2, "plan": "free"}))];
    let names = ["temp_field", "old_data"];
    let emulator = both_say(
        &before,
        [company.unset(names)],
        [mixpanel().unset(names.to_vec())],
        &page,
    );
    assert_eq!(
        profile(&emulator, "company", "mixpanel_inc"),
        json!({"plan": "free"})
    );
}

#[test]
fn union_to_list_property() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Lists {
        #[mixpanel(group_id)]
        id: &'static str,
        #[mixpanel(union)]
        products: Vec<&'static str>,
        #[mixpanel(union)]
        integrations: [String; 2],
    }
    let lists = Lists {
        id: "mixpanel_inc",
        products: vec!["analytics", "data-warehouse"],
        integrations: ["salesforce".into(), "hubspot".into()],
    };
    let properties = json!({
        "products": ["analytics", "data-warehouse"],
        "integrations": ["salesforce", "hubspot"],
    });
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "mixpanel_inc",
        "$union": {
            "products": ["analytics", "data-warehouse"],
            "integrations": ["salesforce", "hubspot"],
        },
    }]);
    // "Add values to a list property, ensuring uniqueness."
    let before = [mixpanel().set(json!({"integrations": ["slack", "hubspot"]}))];
    let emulator = both_say(
        &before,
        lists.updates(),
        [mixpanel().union(properties)],
        &page,
    );
    assert_eq!(
        profile(&emulator, "company", "mixpanel_inc"),
        json!({
            "products": ["analytics", "data-warehouse"],
            "integrations": ["slack", "hubspot", "salesforce"],
        })
    );
}

#[test]
fn remove_from_list_property() {
    let company = Company { id: "mixpanel_inc" };
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "mixpanel_inc",
        "$remove": {"integrations": "deprecated_tool"},
    }]);
    let before = [mixpanel().set(json!({"integrations": ["slack", "deprecated_tool"]}))];
    let emulator = both_say(
        &before,
        [company.remove("integrations", "deprecated_tool")],
        [mixpanel().remove("integrations", String::from("deprecated_tool"))],
        &page,
    );
    assert_eq!(
        profile(&emulator, "company", "mixpanel_inc"),
        json!({"integrations": ["slack"]})
    );
}

#[test]
fn delete_group() {
    let old = Company { id: "old_company" };
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "old_company",
        "$delete": "",
    }]);
    let group = Group::new("company", "old_company");
    let before = [group.set(json!({"plan": "free"}))];
    let emulator = both_say(&before, [old.delete()], [group.delete()], &page);
    assert_eq!(emulator.profile("company", "old_company"), None);
}

#[test]
fn batch_update_groups() {
    /// A partial update: a struct may map only some of a group's properties.
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Changed {
        #[mixpanel(group_id(prefix = "company_"))]
        id: u64,
        plan: Option<&'static str>,
        status: Option<&'static str>,
    }
    let changed = [
        Changed {
            id: 1,
            plan: Some("enterprise"),
            status: None,
        },
        Changed {
            id: 2,
            plan: Some("professional"),
            status: None,
        },
        Changed {
            id: 3,
            plan: None,
            status: Some("active"),
        },
    ];
    let page = json!([
        {
            "$token": "YOUR_PROJECT_TOKEN",
            "$group_key": "company",
            "$group_id": "company_1",
            "$set": {"plan": "enterprise"},
        },
        {
            "$token": "YOUR_PROJECT_TOKEN",
            "$group_key": "company",
            "$group_id": "company_2",
            "$set": {"plan": "professional"},
        },
        {
            "$token": "YOUR_PROJECT_TOKEN",
            "$group_key": "company",
            "$group_id": "company_3",
            "$set": {"status": "active"},
        },
    ]);
    let untyped = [
        Group::new("company", "company_1").set(json!({"plan": "enterprise"})),
        Group::new("company", "company_2").set(json!({"plan": "professional"})),
        Group::new("company", "company_3").set(json!({"status": "active"})),
    ];
    let typed = changed.iter().flat_map(MixpanelGroup::updates);
    let emulator = both_say(&[], typed, untyped, &page);
    assert_eq!(
        profile(&emulator, "company", "company_2"),
        json!({"plan": "professional"})
    );
    assert_eq!(emulator.requests().len(), 1, "all in a single request");
}

#[test]
fn best_practices() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Usage {
        #[mixpanel(group_id(prefix = "company_"))]
        id: u32,
        total_users: u32,
        monthly_usage: u64,
        plan: &'static str,
        seats_purchased: u32,
    }
    // "Use the same identifier format across all systems"; "Track aggregate information".
    let usage = Usage {
        id: 12_345,
        total_users: 150,
        monthly_usage: 50_000,
        plan: "enterprise",
        seats_purchased: 200,
    };
    let properties = json!({
        "total_users": 150, "monthly_usage": 50000, "plan": "enterprise", "seats_purchased": 200,
    });
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "company_12345",
        "$set": properties,
    }]);
    let untyped = [Group::new("company", "company_12345").set(&properties)];
    both_say(&[], usage.updates(), untyped, &page);

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Upgrade<'a> {
        #[mixpanel(group_id)]
        id: &'a str,
        plan: &'a str,
        upgrade_date: &'a str,
    }
    // "Keep group data in sync with your systems: when a company upgrades".
    let upgrade = Upgrade {
        id: "acme_corp",
        plan: "enterprise",
        upgrade_date: "2024-01-15",
    };
    let properties = json!({"plan": "enterprise", "upgrade_date": "2024-01-15"});
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "acme_corp",
        "$set": properties,
    }]);
    let untyped = [Group::new("company", "acme_corp").set(&properties)];
    both_say(&[], upgrade.updates(), untyped, &page);
}

#[test]
fn b2b_saas_company_analytics() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: String,
        name: String,
        industry: Option<String>,
        employees: Option<u32>,
        plan: String,
        mrr: u32,
        seats: u32,
    }
    let company = Company {
        id: "acme_corp".into(),
        name: "Acme Corporation".into(),
        industry: Some("Technology".into()),
        employees: Some(500),
        plan: "enterprise".into(),
        mrr: 5000,
        seats: 100,
    };
    let properties = json!({
        "name": "Acme Corporation", "industry": "Technology", "employees": 500,
        "plan": "enterprise", "mrr": 5000, "seats": 100,
    });
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "acme_corp",
        "$set": properties,
    }]);
    let untyped = [Group::new("company", "acme_corp").set(&properties)];
    let emulator = both_say(&[], company.updates(), untyped, &page);
    assert_eq!(profile(&emulator, "company", "acme_corp"), properties);
}

#[test]
fn multi_tenant_applications() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "workspace")]
    struct Workspace {
        #[mixpanel(group_id(prefix = "ws_"))]
        id: u64,
        name: String,
        members_count: usize,
        storage_used_gb: u64,
        plan: String,
    }
    let workspace = Workspace {
        id: 12_345,
        name: "Marketing Team".into(),
        members_count: 15,
        storage_used_gb: 250,
        plan: "professional".into(),
    };
    let properties = json!({
        "name": "Marketing Team", "members_count": 15, "storage_used_gb": 250,
        "plan": "professional",
    });
    let page = json!([{
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "workspace",
        "$group_id": "ws_12345",
        "$set": properties,
    }]);
    let untyped = [Group::new("workspace", "ws_12345").set(&properties)];
    let emulator = both_say(&[], workspace.updates(), untyped, &page);
    assert_eq!(profile(&emulator, "workspace", "ws_12345"), properties);
}

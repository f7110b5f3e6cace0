//! The examples of Mixpanel's reference page, run as they stand there but for the host.
//!
//! They need the programs `curl` and `python3`, the latter with its package `requests`. Where one
//! is missing, its test says so and is skipped, but not where `CI` is set.

use std::process::{Command, Output};

use common::say_missing;
use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

use crate::wire::{Sender, update};

const HOST: &str = "https://api.mixpanel.com";

/// Runs a program with the example, its host replaced; nothing if the program is missing.
fn run(emulator: &Emulator, program: &str, example: &str) -> Option<Output> {
    let example = example.replace(HOST, &emulator.endpoint());
    let (shell, needed) = match program {
        "curl" => ("sh", "command -v curl".to_owned()),
        _ => ("python3", "import requests".to_owned()),
    };
    let command = |code: &str| {
        let mut command = Command::new(shell);
        command.args(["-c", code]).env("no_proxy", "127.0.0.1");
        command.output()
    };
    if !command(&needed).is_ok_and(|output| output.status.success()) {
        say_missing(format!(
            "an example of the reference page: {program} is missing (apt-get install curl, pip install requests)"
        ));
        return None;
    }
    Some(command(&example).unwrap())
}

/// Runs a curl example on a project that has this profile of `mixpanel_inc`, and returns what the
/// profile is then.
fn curl(before: Value, example: &str) -> Option<Value> {
    let emulator = Emulator::start().unwrap();
    for id in ["mixpanel_inc", "old_company"] {
        let set = update(id, "$set", before.clone());
        assert_eq!(Sender::new(&emulator).send("", &set).body, "1");
    }
    let output = run(&emulator, "curl", example)?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1", "{output:?}");
    let id = if example.contains("old_company") {
        "old_company"
    } else {
        "mixpanel_inc"
    };
    let profile = emulator.profile("company", id).unwrap_or_default();
    Some(serde_json::to_value(profile).unwrap())
}

fn assert_curl(before: Value, example: &str, after: Value) {
    if let Some(profile) = curl(before, example) {
        assert_eq!(profile, after);
    }
}

#[test]
fn set() {
    assert_curl(
        json!({"plan": "free", "seats": 5}),
        r#"curl https://api.mixpanel.com/groups \
  --data-urlencode data='[
    {
      "$token": "YOUR_PROJECT_TOKEN",
      "$group_key": "company",
      "$group_id": "mixpanel_inc",
      "$set": {
        "name": "Mixpanel Inc",
        "industry": "Analytics",
        "employees": 350,
        "plan": "enterprise"
      }
    }
  ]'"#,
        json!({
            "name": "Mixpanel Inc",
            "industry": "Analytics",
            "employees": 350,
            "plan": "enterprise",
            "seats": 5,
        }),
    );
}

#[test]
fn set_once() {
    assert_curl(
        json!({"founding_year": 2000}),
        r#"curl https://api.mixpanel.com/groups \
  --data-urlencode data='[
    {
      "$token": "YOUR_PROJECT_TOKEN",
      "$group_key": "company",
      "$group_id": "mixpanel_inc",
      "$set_once": {
        "created_date": "2024-01-01",
        "founding_year": 2009
      }
    }
  ]'"#,
        json!({"created_date": "2024-01-01", "founding_year": 2000}),
    );
}

#[test]
fn unset() {
    assert_curl(
        json!({"temp_field": 1, "kept": 2}),
        r#"curl https://api.mixpanel.com/groups \
  --data-urlencode data='[
    {
      "$token": "YOUR_PROJECT_TOKEN",
      "$group_key": "company",
      "$group_id": "mixpanel_inc",
      "$unset": ["temp_field", "old_data"]
    }
  ]'"#,
        json!({"kept": 2}),
    );
}

#[test]
fn union() {
    assert_curl(
        json!({"integrations": ["hubspot", "slack"]}),
        r#"curl https://api.mixpanel.com/groups \
  --data-urlencode data='[
    {
      "$token": "YOUR_PROJECT_TOKEN",
      "$group_key": "company",
      "$group_id": "mixpanel_inc",
      "$union": {
        "products": ["analytics", "data-warehouse"],
        "integrations": ["salesforce", "hubspot"]
      }
    }
  ]'"#,
        json!({
            "products": ["analytics", "data-warehouse"],
            "integrations": ["hubspot", "slack", "salesforce"],
        }),
    );
}

#[test]
fn remove() {
    assert_curl(
        json!({"integrations": ["hubspot", "deprecated_tool"]}),
        r#"curl https://api.mixpanel.com/groups \
  --data-urlencode data='[
    {
      "$token": "YOUR_PROJECT_TOKEN",
      "$group_key": "company",
      "$group_id": "mixpanel_inc",
      "$remove": {
        "integrations": "deprecated_tool"
      }
    }
  ]'"#,
        json!({"integrations": ["hubspot"]}),
    );
}

#[test]
fn delete() {
    assert_curl(
        json!({"name": "Old"}),
        r#"curl https://api.mixpanel.com/groups \
  --data-urlencode data='[
    {
      "$token": "YOUR_PROJECT_TOKEN",
      "$group_key": "company",
      "$group_id": "old_company",
      "$delete": ""
    }
  ]'"#,
        json!(null),
    );
}

/// The page's pattern of a request: all operations at once, which no update may have.
#[test]
fn all_operations_at_once() {
    let emulator = Emulator::start().unwrap();
    let output = run(
        &emulator,
        "curl",
        r#"curl --request POST \
  --url https://api.mixpanel.com/groups \
  --header 'Content-Type: application/json' \
  --data '
{
  "$token": "<string>",
  "$group_key": "<string>",
  "$group_id": "<string>",
  "$set": {},
  "$set_once": {},
  "$unset": [
    {}
  ],
  "$union": {},
  "$remove": {},
  "$delete": "<string>"
}
'"#,
    );
    if let Some(output) = output {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0", "{output:?}");
        assert!(emulator.profiles().is_empty());
    }
}

#[test]
fn batch_in_python() {
    let emulator = Emulator::start().unwrap();
    let output = run(
        &emulator,
        "python3 with requests",
        r#"
import requests
import json

data = [
    {
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "company_1",
        "$set": {"plan": "enterprise"}
    },
    {
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "company_2",
        "$set": {"plan": "professional"}
    },
    {
        "$token": "YOUR_PROJECT_TOKEN",
        "$group_key": "company",
        "$group_id": "company_3",
        "$set": {"status": "active"}
    }
]

response = requests.post(
    'https://api.mixpanel.com/groups',
    data={'data': json.dumps(data)}
)

print(response.text)
"#,
    );
    if let Some(output) = output {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{output:?}");
        let profile = |id| emulator.profile("company", id).unwrap();
        assert_eq!(profile("company_1"), json!({"plan": "enterprise"}));
        assert_eq!(profile("company_2"), json!({"plan": "professional"}));
        assert_eq!(profile("company_3"), json!({"status": "active"}));
    }
}

/// "Linking Users to Groups".
#[test]
fn import_in_python() {
    let emulator = Emulator::builder()
        .service_account("SERVICE_ACCOUNT", "SECRET", "PROJECT_ID")
        .start()
        .unwrap();
    let output = run(
        &emulator,
        "python3 with requests",
        r#"
import requests
import uuid
import time

# Track event with group association
event = {
    "event": "Purchase",
    "properties": {
        "time": int(time.time()),
        "distinct_id": "user123",
        "$insert_id": str(uuid.uuid4()),
        "company": "mixpanel_inc",  # Links user to group
        "amount": 99.99
    }
}

response = requests.post(
    'https://api.mixpanel.com/import',
    auth=('SERVICE_ACCOUNT', 'SECRET'),
    params={'project_id': 'PROJECT_ID', 'strict': '1'},
    json=[event]
)
"#,
    );
    if let Some(output) = output {
        assert!(output.status.success(), "{output:?}");
        let [request] = &emulator.requests()[..] else {
            panic!("{:?}", emulator.requests())
        };
        assert_eq!(request.status, Some(200));
        let [event] = &emulator.events_of("company", "mixpanel_inc")[..] else {
            panic!("{:?}", emulator.events())
        };
        assert_eq!(event["event"], "Purchase");
        assert_eq!(event["properties"]["distinct_id"], "user123");
        assert_eq!(event["properties"]["amount"], 99.99);
    }
}

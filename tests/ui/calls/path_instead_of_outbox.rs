use mixpanel_groups::Client;

fn start(client: &Client) {
    let _ = client.buffered().outbox("outbox.db").start();
}

fn main() {}

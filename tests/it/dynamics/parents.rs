//! Columns of parents, and the out-of-the-box jobs, on live data.

use super::webhooks::{HOOK, HOOK_SECRET};
use super::*;
use tributary::model::value::Value;

/// Contacts have columns of their account, of its owner, and of their own; a filter asks the account.
const PEOPLE: &str = r#"
[job.contoso.people]
source = "contact"
where = "parentcustomerid:account.numberofemployees != 666"
on_filter_exit = "delete"
on_delete = "delete"
[job.contoso.people.to.Person]
identifiers = ["external_id"]
[job.contoso.people.to.Person.map]
external_id = "contactid"
last_name = "lastname"
prefix = "parentcustomerid:account.name"
location = "parentcustomerid:account.statecode@label"
locale = "ownerid:systemuser.internalemailaddress"
phone = "parentcustomerid:account.ownerid:systemuser.domainname"
time_zone = "parentcustomerid:contact.lastname"
"#;
const ALL: &str = "oob = { catalog = 1, jobs = \"all\" }";

fn contact(number: usize) -> String {
    format!("cccccccc-0000-4000-8000-{number:012x}")
}

impl World {
    /// Writes a contact of an account, or of nobody.
    async fn person(&self, number: usize, last: &str, account: Option<usize>) {
        let path = format!("contacts({})", contact(number));
        let mut body = json!({"lastname": last, "emailaddress1": format!("p{number}@example.com")});
        if let Some(account) = account {
            body["parentcustomerid_account@odata.bind"] =
                format!("/accounts({})", guid(account)).into();
        }
        self.write(Method::PATCH, &path, Some(body)).await;
    }

    async fn change(&self, number: usize, body: Json) {
        let path = format!("accounts({})", guid(number));
        self.write(Method::PATCH, &path, Some(body)).await;
    }

    /// Gives accounts and contacts to a person among the users, whose address and name these are.
    async fn give_away(&self, accounts: usize, contacts: usize) -> (String, String) {
        let path = "systemusers?$select=internalemailaddress,domainname&$filter=domainname eq 'ada@simulated.example'";
        let url = format!("{}/api/data/v9.2/{path}", self.org.url);
        let answer = self.http.get(url).bearer_auth(&self.token).send().await;
        let answer: Json = answer.unwrap().json().await.unwrap();
        let user = &answer["value"][0];
        let text = |name: &str| user[name].as_str().unwrap().to_owned();
        let owner =
            json!({"ownerid@odata.bind": format!("/systemusers({})", text("systemuserid"))});
        for number in 0..accounts {
            self.change(number, owner.clone()).await;
        }
        for number in 0..contacts {
            let path = format!("contacts({})", contact(number));
            self.write(Method::PATCH, &path, Some(owner.clone())).await;
        }
        (text("internalemailaddress"), text("domainname"))
    }

    /// A daemon of these jobs alone, and of one for accounts if they are read.
    async fn people(&self, accounts: bool) -> Daemon {
        let file = self.people_file(accounts, "50ms", "");
        Daemon::start(load(&file).unwrap()).await.unwrap()
    }

    fn people_file(&self, accounts: bool, poll_interval: &str, more: &str) -> PathBuf {
        let file = self.configure("daily 03:00", poll_interval, more);
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, company) = text.split_at(text.find("[job.contoso.company_sync]").unwrap());
        let company = if accounts { company } else { "" };
        std::fs::write(&file, format!("{before}{company}{PEOPLE}")).unwrap();
        file
    }

    /// Some columns of a table, a row a line.
    fn lines(&self, sql: &str) -> Vec<String> {
        let file = self.home.path().join("data/store.db");
        let Ok(store) = rusqlite::Connection::open(file) else {
            return Vec::new();
        };
        let Ok(mut rows) = store.prepare(sql) else {
            return Vec::new();
        };
        let lines = rows.query_map([], |row| row.get(0)).unwrap();
        let lines = lines.map(|line: Result<Option<String>, _>| line.unwrap());
        lines.map(Option::unwrap_or_default).collect()
    }

    /// Waits until the lines are these.
    async fn shows(&self, daemon: &Daemon, sql: &str, expected: &[&str]) {
        let began = Instant::now();
        while self.lines(sql) != expected {
            assert!(
                began.elapsed() < PATIENCE,
                "{:?}, not {expected:?}: {:?}",
                self.lines(sql),
                daemon.picture()
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn shows_people(&self, daemon: &Daemon, expected: &[&str]) {
        let sql =
            "SELECT last_name || ' at ' || ifnull(prefix, '-') FROM person ORDER BY last_name";
        self.shows(daemon, sql, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_tell_columns_of_parents_of_every_kind() {
    let world = World::of(3).await;
    for (number, account) in [(0, Some(0)), (1, Some(0)), (2, Some(2)), (3, None)] {
        world.person(number, &format!("L{number}"), account).await;
    }
    let child =
        json!({"parentcustomerid_contact@odata.bind": format!("/contacts({})", contact(0))});
    let path = format!("contacts({})", contact(3));
    world.write(Method::PATCH, &path, Some(child)).await;
    world.person(4, "L4", None).await;
    let (email, domain) = world.give_away(3, 5).await;
    let chosen = Selection {
        object: "contact".into(),
        fields: [
            "parentcustomerid:account.name",
            "parentcustomerid:account.statecode@label",
            "parentcustomerid:account.ownerid:systemuser.domainname",
            "parentcustomerid:contact.lastname",
            "ownerid:systemuser.internalemailaddress",
        ]
        .map(FieldName::new)
        .into(),
    };
    let crm = world.crm(2);
    let ids: Vec<_> = (0..5)
        .map(|number| crm.record_id(&contact(number)).unwrap())
        .collect();
    // Page by page, with change tracking; then by id.
    let mut rows = Vec::new();
    let mut pages = crm.read_all(&chosen, None).await.unwrap();
    while let Some(page) = pages.next().await.unwrap() {
        rows.extend(page.rows);
    }
    let found = crm.read_ids(&chosen, &ids).await.unwrap();
    assert_eq!((rows.len(), found.rows.len()), (5, 5));
    for row in rows.into_iter().chain(found.rows) {
        let number = ids.iter().position(|id| *id == row.record).unwrap();
        let (name, parent) = match number {
            0 | 1 => (Some("Example 0"), None),
            2 => (Some("Example 2"), None),
            3 => (None, Some("L0")),
            _ => (None, None),
        };
        let expected = [
            name,
            name.map(|_| "Active"),
            name.map(|_| domain.as_str()),
            parent,
            Some(email.as_str()),
        ];
        for (field, expected) in chosen.fields.iter().zip(expected) {
            let expected = expected.map_or(Value::Null, Value::from);
            assert_eq!(row.fields.get(field), Some(&expected), "{number} {field}");
        }
    }
    for (path, why) in [
        ("parentcustomerid.name", "account or contact"),
        ("parentcustomerid:account.nme", "`nme`"),
        ("parentid:account.name", "`parentid:account`"),
    ] {
        let chosen = Selection {
            object: "contact".into(),
            fields: vec![path.into()],
        };
        let fault = crm.read_ids(&chosen, &ids).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Missing);
        assert!(fault.report().contains(why), "{}", fault.report());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_show_their_parents_as_they_are() {
    let world = World::of(3).await;
    world.person(0, "Ada", Some(0)).await;
    world.person(1, "Bo", Some(1)).await;
    let daemon = world.people(true).await;
    world
        .shows_people(&daemon, &["Ada at Example 0", "Bo at Example 1"])
        .await;
    let (email, domain) = world.give_away(3, 2).await;
    let seen = format!("Active {email} {domain}");
    let more = "SELECT location || ' ' || locale || ' ' || phone FROM person ORDER BY last_name";
    world.shows(&daemon, more, &[&seen, &seen]).await;
    world.change(0, json!({"name": "Renamed"})).await;
    world.person(1, "Bo", Some(2)).await;
    world.person(2, "Cy", Some(0)).await;
    world.person(3, "Di", None).await;
    let people = [
        "Ada at Renamed",
        "Bo at Example 2",
        "Cy at Renamed",
        "Di at -",
    ];
    world.shows_people(&daemon, &people).await;
    // A parent's change decides what passes the filter, on the way out and back.
    world.change(0, json!({"numberofemployees": 666})).await;
    world
        .shows_people(&daemon, &["Bo at Example 2", "Di at -"])
        .await;
    world.change(0, json!({"numberofemployees": 7})).await;
    world.shows_people(&daemon, &people).await;
    // What happens to parents while nobody listens.
    daemon.stop().await.unwrap();
    world.change(2, json!({"name": "While it was down"})).await;
    world.delete(0).await;
    let daemon = world.people(true).await;
    let people = ["Ada at -", "Bo at While it was down", "Cy at -", "Di at -"];
    world.shows_people(&daemon, &people).await;
    daemon.stop().await.unwrap();
}

/// The parent's step runs for columns that paths from its children come to; no table is asked for changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_parents_webhook_tells_its_children() {
    let world = World::of(2).await;
    world.person(0, "Ada", Some(0)).await;
    std::fs::write(world.home.path().join("hook"), HOOK_SECRET).unwrap();
    let file = world.people_file(true, "1h", HOOK);
    let daemon = Daemon::start(load(&file).unwrap()).await.unwrap();
    let url = format!("http://{}", daemon.address());
    world.register(&file, &url).await;
    let states = "SELECT prefix || ' ' || location FROM person";
    world.shows(&daemon, states, &["Example 0 Active"]).await;
    let closed = json!({"statecode": 1, "statuscode": 2});
    world.change(0, closed).await;
    world.shows(&daemon, states, &["Example 0 Inactive"]).await;
    world.person(0, "Ada", Some(1)).await;
    world.shows(&daemon, states, &["Example 1 Active"]).await;
    daemon.stop().await.unwrap();
}

/// No job reads accounts: a contact that comes or moves is read by id, and what the account does is found later.
#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_no_job_reads_comes_with_the_childs_reads() {
    let world = World::of(3).await;
    world.person(0, "Ada", Some(0)).await;
    let daemon = world.people(false).await;
    world.shows_people(&daemon, &["Ada at Example 0"]).await;
    world.person(0, "Ada", Some(1)).await;
    world.person(1, "Bo", Some(2)).await;
    world
        .shows_people(&daemon, &["Ada at Example 1", "Bo at Example 2"])
        .await;
    world.change(1, json!({"name": "Renamed"})).await;
    daemon.stop().await.unwrap();
    // Another selection, another full sync.
    let text = PEOPLE.replace(
        "phone = \"parentcustomerid:account.ownerid:systemuser.domainname\"\n",
        "",
    );
    let file = world.home.path().join("all.toml");
    let config = std::fs::read_to_string(&file)
        .unwrap()
        .replace(PEOPLE, &text);
    std::fs::write(&file, config).unwrap();
    let daemon = Daemon::start(load(&file).unwrap()).await.unwrap();
    world
        .shows_people(&daemon, &["Ada at Renamed", "Bo at Example 2"])
        .await;
    daemon.stop().await.unwrap();
}

/// Tables M1 to M3, D1 and D2: users with their managers, companies, and contacts as persons at companies.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_runs_on_live_data() {
    let world = World::of(2).await;
    world.person(0, "Ada", Some(0)).await;
    world.person(1, "Bo", None).await;
    let file = world.configure("daily 03:00", "50ms", ALL);
    let text = std::fs::read_to_string(&file).unwrap();
    let (text, _) = text.split_at(text.find("[job.contoso.company_sync]").unwrap());
    std::fs::write(&file, text).unwrap();
    let daemon = Daemon::start(load(&file).unwrap()).await.unwrap();
    let columns: Vec<String> = {
        let began = Instant::now();
        loop {
            let columns = world.lines("SELECT name FROM pragma_table_info('company_person') WHERE name LIKE 'external_%' ORDER BY name");
            if !columns.is_empty() {
                break columns;
            }
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let instance = columns
        .iter()
        .find_map(|name| name.strip_prefix("external_account_id_"))
        .unwrap_or_else(|| panic!("{columns:?}"));
    let members = format!(
        "SELECT person.last_name || ' ' || company.name || ' ' || company.employees FROM company_person AS member
         JOIN person ON person.gsid = member.person_id JOIN company ON company.gsid = member.company_id
         WHERE member.external_account_id_{instance} = company.external_account_id_{instance} ORDER BY 1"
    );
    world.shows(&daemon, &members, &["Ada Example 0 0"]).await;
    let people = "SELECT last_name FROM person ORDER BY last_name";
    world.shows(&daemon, people, &["Ada", "Bo"]).await;
    // One comes to a company, the other's company changes.
    world.person(1, "Bo", Some(1)).await;
    world.change(0, json!({"name": "Renamed"})).await;
    let expected = ["Ada Renamed 0", "Bo Example 1 1"];
    world.shows(&daemon, &members, &expected).await;
    let users =
        "SELECT user.username FROM user JOIN user_avatar ON user_avatar.user = user.gsid LIMIT 1";
    let began = Instant::now();
    while world.lines(users).is_empty() {
        assert!(began.elapsed() < PATIENCE, "no user has an avatar");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    daemon.stop().await.unwrap();
}

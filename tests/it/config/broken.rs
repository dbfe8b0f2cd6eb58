//! A broken config per rule, with the golden text of its problem; several files with several mistakes at once.

use super::{Fixture, SINGLE};

/// A rule's name, what is replaced in [`SINGLE`], and by what (`""`: put at the end).
type Case = (&'static str, &'static str, &'static str);

const USER: &str = "source = \"User\"\n";
const USER_MAP: &str = "map = { username = \"Username\", email = \"Email\" }";
const CSM: &str = "derive.csm = { from = \"User\", match = { \"@id\" = \"OwnerId\" } }";
const ORG: &str = "org = \"https://acme.my.salesforce.com\"";
const AUTH: &str = "auth = { flow = \"client_credentials\", client_id = \"3MVG9\", client_secret = { env = \"ACME_SECRET\" } }";

const SECTIONS: &[Case] = &[
    ("no TOML", "kind = ", "kind "),
    (
        "no TOML, a text without its end",
        ORG,
        "org = \"https://acme",
    ),
    ("unknown section", "", "[deamon]\n"),
    ("unknown section, far from any", "", "[pipeline]\n"),
    ("unknown key", "", "[admin]\nlisten_on = \"127.0.0.1:1\"\n"),
    (
        "state has no section",
        "",
        "[state]\nurl = \"postgres://x\"\n",
    ),
    (
        "wrong type of a section",
        "connection.acme]\n",
        "connection.acme]\nx = 1\n[[admin]]\n[connection.b]\n",
    ),
    ("data_dir empty", "", "[daemon]\ndata_dir = \" \"\n"),
    ("time zone", "", "[daemon]\ntime_zone = \"Europe/Berlín\"\n"),
    ("listen", "", "[admin]\nlisten = \"localhost:8080\"\n"),
    ("listen, a number", "", "[admin]\nlisten = 8080\n"),
    (
        "listen to all without a token",
        "",
        "[admin]\nlisten = \"0.0.0.0:8080\"\n",
    ),
    (
        "public_url",
        "",
        "[admin]\npublic_url = \"sync.example.com\"\n",
    ),
    (
        "a secret in the config",
        "",
        "[admin]\ntoken = \"hunter2\"\n",
    ),
    (
        "a secret at two places",
        "",
        "[admin]\ntoken = { env = \"A\", file = \"b\" }\n",
    ),
    (
        "a secret's variable",
        "",
        "[admin]\ntoken = { env = \"A-B\" }\n",
    ),
    (
        "log url, kafka",
        "",
        "[log]\nurl = \"kafka://broker:9092\"\n",
    ),
    ("log url, unknown", "", "[log]\nurl = \"file:log\"\n"),
    (
        "log kafka",
        "",
        "[log.kafka]\n\"security.protocol\" = \"ssl\"\n",
    ),
    ("log prefix", "", "[log]\nprefix = \"a.b\"\n"),
    (
        "log forget_after, no duration",
        "",
        "[log]\nforget_after = \"90\"\n",
    ),
    (
        "log forget_after, a number",
        "",
        "[log]\nforget_after = 90\n",
    ),
    (
        "log forget_after, out of range",
        "",
        "[log]\nforget_after = \"1h\"\n",
    ),
    (
        "target, later",
        "",
        "[target]\nurl = \"postgres://me:pw@host/db\"\n",
    ),
    ("target, unknown", "", "[target]\nurl = \"mysql://host\"\n"),
    ("target, no file", "", "[target]\nurl = \"sqlite:\"\n"),
    (
        "target, a sqlite URL",
        "",
        "[target]\nurl = \"sqlite://store.db\"\n",
    ),
    (
        "person_key, unknown column",
        "",
        "[store]\nperson_key = [\"emial\"]\n",
    ),
    ("person_key, empty", "", "[store]\nperson_key = []\n"),
    (
        "corporate_currency",
        "",
        "[store]\ncorporate_currency = \"usd\"\n",
    ),
    ("smtp", "", "[mail]\nsmtp = \"mail.example:465\"\n"),
    (
        "notify, nothing",
        "",
        "[notify]\nrevops = { every = \"1m\" }\n",
    ),
    (
        "notify, an address",
        "",
        "[notify]\nrevops = { mail = [\"revops\"] }\n",
    ),
];

const CONNECTIONS: &[Case] = &[
    ("id", "connection.acme]", "connection.\"acme.eu\"]"),
    ("kind missing", "kind = \"salesforce\"", ""),
    (
        "kind, later",
        "kind = \"salesforce\"",
        "kind = \"dynamics\"",
    ),
    (
        "kind, unknown",
        "kind = \"salesforce\"",
        "kind = \"hubspot\"",
    ),
    ("org missing", ORG, ""),
    ("org, a word", ORG, "org = \"acme\""),
    (
        "org, plain text",
        ORG,
        "org = \"http://acme.my.salesforce.com\"",
    ),
    (
        "org, Lightning",
        ORG,
        "org = \"https://acme--dev.sandbox.lightning.force.com/lightning/page/home\"",
    ),
    (
        "org, Setup",
        ORG,
        "org = \"https://acme.my.salesforce-setup.com\"",
    ),
    (
        "org, a page",
        ORG,
        "org = \"https://acme.my.salesforce.com/home/home.jsp\"",
    ),
    (
        "org, a user in it",
        ORG,
        "org = \"https://me:pw@acme.my.salesforce.com\"",
    ),
    (
        "org, production with client credentials",
        ORG,
        "org = \"production\"",
    ),
    ("auth missing", AUTH, ""),
    ("auth, a text", AUTH, "auth = \"hunter2\""),
    ("auth flow, later", "client_credentials", "jwt_bearer"),
    ("auth flow, unknown", "client_credentials", "password"),
    ("client_id missing", "client_id = \"3MVG9\", ", ""),
    (
        "client_secret missing",
        ", client_secret = { env = \"ACME_SECRET\" }",
        "",
    ),
    (
        "client_secret literal",
        "{ env = \"ACME_SECRET\" }",
        "\"hunter2\"",
    ),
    (
        "secret_expires",
        " } }",
        " }, secret_expires = \"2027-01-31\" }",
    ),
    (
        "transport, later",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\ntransport = \"pubsub\"",
    ),
    (
        "transport, unknown",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\ntransport = \"poll\"",
    ),
    (
        "pubsub_address",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\npubsub_address = \"api.pubsub.salesforce.com:7443\"",
    ),
    (
        "oob",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\noob = { catalog = 1, jobs = \"all\" }",
    ),
    (
        "api_version",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\napi_version = \"v66\"",
    ),
    (
        "api_version, a number",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\napi_version = 66.0",
    ),
    (
        "plain_text",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\nplain_text = \"yes\"",
    ),
    (
        "read_lag",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\nread_lag = \"1h\"",
    ),
    (
        "login_url",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\nlogin_url = \"http://127.0.0.1:1\"",
    ),
    (
        "company_resolution",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\ncompany_resolution = { salesforce_acount_id = \"Id\" }",
    ),
    (
        "notify, nobody",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\nnotify = { failure = [\"revops\"] }",
    ),
    (
        "unknown key",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\nread_log = \"5s\"",
    ),
    (
        "unknown connection",
        "[connection.acme]",
        "[connection.acne]",
    ),
];

const JOBS: &[Case] = &[
    ("id", "job.acme.user_sync", "job.acme.\"user sync\""),
    ("source missing", USER, ""),
    ("source", USER, "source = \"User Account\"\n"),
    ("unknown key", USER, "source = \"User\"\nrealtme = true\n"),
    ("realtime", USER, "source = \"User\"\nrealtime = \"on\"\n"),
    (
        "full_sync",
        USER,
        "source = \"User\"\nfull_sync = \"hourly\"\n",
    ),
    (
        "on_delete",
        USER,
        "source = \"User\"\non_delete = \"remove\"\n",
    ),
    (
        "on_filter_exit",
        USER,
        "source = \"User\"\non_filter_exit = \"marked\"\n",
    ),
    (
        "on_empty_identifier",
        USER,
        "source = \"User\"\non_empty_identifier = \"skip\"\n",
    ),
    ("on_move", USER, "source = \"User\"\non_move = \"keep\"\n"),
    (
        "parked_ttl",
        USER,
        "source = \"User\"\nparked_ttl = \"30 days\"\n",
    ),
    ("where empty", USER, "source = \"User\"\nwhere = \"\"\n"),
    ("replace", USER, "source = \"User\"\nreplace = true\n"),
    (
        "and_where",
        USER,
        "source = \"User\"\nand_where = \"IsActive = true\"\n",
    ),
    (
        "realtime_fields",
        USER,
        "source = \"User\"\nrealtime_fields = [\"Name\"]\n",
    ),
    (
        "refresh",
        USER,
        "source = \"User\"\nrefresh = \"on_change\"\n",
    ),
    (
        "brakes",
        USER,
        "source = \"User\"\nbrakes = { max_delete_percent = 500, max_nul_percent = 1 }\n",
    ),
    (
        "depends_on",
        USER,
        "source = \"User\"\ndepends_on = [\"company_synk\", \"user_sync\"]\n",
    ),
    (
        "schedule",
        USER,
        "source = \"User\"\nschedule = \"monthly 31 02:00\"\n",
    ),
    (
        "same name",
        USER,
        "source = \"User\"\nname = \"company_sync\"\n",
    ),
    ("J6", USER, "source = \"Account\"\n"),
    ("J6 and two spellings", USER, "source = \"account\"\n"),
    (
        "test, nothing",
        "",
        "[[job.acme.user_sync.test]]\ngiven = { User = [{ Id = \"005\", Tags = [1] }] }\n",
    ),
    (
        "chain",
        "",
        "[chain.acme.nightly]\njobs = [\"user_sync\", \"user_sync\", \"person_sync\"]\non_failure = \"go\"\n",
    ),
    ("chain, empty", "", "[chain.acme.nightly]\njobs = []\n"),
];

const DESTINATIONS: &[Case] = &[
    (
        "to empty",
        "[job.acme.user_sync.to.User]\nidentifiers = [\"username\"]\nmap = { username = \"Username\", email = \"Email\" }",
        "to = {}",
    ),
    (
        "to missing",
        "[job.acme.user_sync.to.User]\nidentifiers = [\"username\"]\nmap = { username = \"Username\", email = \"Email\" }",
        "",
    ),
    ("unknown object", "to.User]", "to.Users]"),
    ("an object by its table", "to.User]", "to.user]"),
    (
        "unknown key",
        USER_MAP,
        "map = { username = \"Username\" }\ndervie = {}",
    ),
    ("map missing", USER_MAP, ""),
    ("identifiers missing", "identifiers = [\"username\"]\n", ""),
    (
        "identifiers empty",
        "identifiers = [\"username\"]",
        "identifiers = []",
    ),
    (
        "identifiers, a text",
        "identifiers = [\"username\"]",
        "identifiers = \"username\"",
    ),
    (
        "identifier not mapped",
        "identifiers = [\"username\"]",
        "identifiers = [\"usernam\", \"last_name\"]",
    ),
    (
        "identifier twice",
        "identifiers = [\"username\"]",
        "identifiers = [\"username\", \"username\"]",
    ),
    (
        "identifier of an avatar",
        "identifiers = [\"username\"]",
        "identifiers = [\"avatar.user_id\"]",
    ),
    (
        "person key of another object",
        "identifiers = [\"salesforce_account_id\"]",
        "identifiers = \"@person_key\"",
    ),
    (
        "avatar",
        USER_MAP,
        "map = { username = \"Username\" }\navatar = { active = \"IsActive\" }",
    ),
    (
        "unknown column",
        USER_MAP,
        "map = { username = \"Username\", emial = \"Email\" }",
    ),
    (
        "unknown column, far from any",
        USER_MAP,
        "map = { username = \"Username\", shoe_size = \"Shoe__c\" }",
    ),
    (
        "a column of the daemon",
        USER_MAP,
        "map = { username = \"Username\", crm_state = \"State__c\" }",
    ),
    (
        "a placeholder",
        USER_MAP,
        "map = { username = \"Username\", \"external_id_{instance}\" = \"Id\" }",
    ),
    (
        "a gsid mapped",
        USER_MAP,
        "map = { username = \"Username\", manager = \"ManagerId\" }",
    ),
    (
        "a mapping of a number",
        USER_MAP,
        "map = { username = \"Username\", email = 5 }",
    ),
    (
        "a mapping removed",
        USER_MAP,
        "map = { username = \"Username\", email = false }",
    ),
    (
        "a mapping empty",
        USER_MAP,
        "map = { username = \"Username\", email = \"\" }",
    ),
    (
        "a mapping from nothing",
        USER_MAP,
        "map = { username = \"Username\", email = { default = \"x\" } }",
    ),
    (
        "a mapping from two",
        USER_MAP,
        "map = { username = \"Username\", email = { from = \"Email\", value = \"x\" } }",
    ),
    (
        "a constant with a default",
        USER_MAP,
        "map = { username = \"Username\", email = { value = \"x\", default = \"y\" } }",
    ),
    (
        "default and on_null",
        USER_MAP,
        "map = { username = \"Username\", email = { from = \"Email\", default = \"y\", on_null = \"keep\" } }",
    ),
    (
        "when, on_null",
        USER_MAP,
        "map = { username = \"Username\", email = { from = \"Email\", when = \"update\", on_null = \"null\" } }",
    ),
    (
        "values",
        USER_MAP,
        "map = { username = \"Username\", email = { from = \"Email\", values = {} }, locale = { from = \"L\", values = { a = [1], b = nan } } }",
    ),
    (
        "mapped and derived",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"OwnerId\" } }\nmap.csm = { value = \"0190a5b2-0000-7000-8000-000000000001\" }",
    ),
    (
        "derive a text",
        CSM,
        "derive.name = { from = \"User\", match = { \"@id\" = \"OwnerId\" } }",
    ),
    (
        "derive from another object",
        CSM,
        "derive.csm = { from = \"Company\", match = { \"@id\" = \"OwnerId\" } }",
    ),
    (
        "derive from an unknown object",
        CSM,
        "derive.csm = { from = \"Usre\", match = { \"@id\" = \"OwnerId\" } }",
    ),
    (
        "derive in two ways",
        CSM,
        "derive.csm = { from = \"User\", sibling = \"User\" }",
    ),
    (
        "derive by an unknown column",
        CSM,
        "derive.csm = { from = \"User\", match = { usernam = \"Owner.Username\" } }",
    ),
    (
        "derive by no pair",
        CSM,
        "derive.csm = { from = \"User\", match = {} }",
    ),
    (
        "derive by seven pairs",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\", name = \"B\", email = \"C\", username = \"D\", locale = \"E\", division = \"F\", phone = \"G\" } }",
    ),
    (
        "derive, no such policies",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\" }, on_multiple = \"first\", on_none = \"nil\" }",
    ),
    (
        "derive, default missing",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\" }, on_none = \"default\" }",
    ),
    (
        "derive, default is none",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\" }, on_none = \"default\", default = \"005\" }",
    ),
    (
        "derive, default alone",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\" }, default = \"0190a5b2-0000-7000-8000-000000000001\" }",
    ),
    (
        "sibling of itself",
        CSM,
        "derive.parent_company = { sibling = \"Company\" }",
    ),
];

const OBJECTS: &[Case] = &[
    (
        "table",
        "",
        "[object.Asset]\nlabel = \"Asset\"\nfields.a.type = \"string\"\n",
    ),
    (
        "table of the daemon",
        "",
        "[object.tributary_rows]\nlabel = \"Asset\"\nfields.a.type = \"string\"\n",
    ),
    (
        "label missing",
        "",
        "[object.asset.fields]\na.type = \"string\"\n",
    ),
    (
        "label twice",
        "",
        "[object.asset]\nlabel = \"Company\"\nfields.a.type = \"string\"\n",
    ),
    (
        "label of a standard object",
        "",
        "[object.company]\nlabel = \"Account\"\n",
    ),
    ("no columns", "", "[object.asset]\nlabel = \"Asset\"\n"),
    (
        "column",
        "",
        "[object.company.fields]\nYearStarted.type = \"number\"\n",
    ),
    (
        "column of every table",
        "",
        "[object.company.fields]\ngsid.type = \"string\"\n",
    ),
    (
        "type missing",
        "",
        "[object.company.fields]\nyear_started.label = \"Year\"\n",
    ),
    (
        "type",
        "",
        "[object.company.fields]\nyear_started.type = \"integer\"\n",
    ),
    (
        "type of a standard column",
        "",
        "[object.company.fields]\nname.type = \"number\"\n",
    ),
    (
        "references missing",
        "",
        "[object.company.fields]\npartner.type = \"gsid\"\n",
    ),
    (
        "references of a text",
        "",
        "[object.company.fields]\npartner = { type = \"string\", references = \"Company\" }\n",
    ),
    (
        "references unknown",
        "",
        "[object.company.fields]\npartner = { type = \"gsid\", references = \"Compny\" }\n",
    ),
    (
        "column label twice",
        "",
        "[object.company.fields]\nfirm = { type = \"string\", label = \"Name\" }\n",
    ),
];

fn texts(cases: &[Case]) -> String {
    let mut all = String::new();
    for (rule, from, to) in cases {
        let text = if from.is_empty() {
            format!("{SINGLE}{to}")
        } else {
            assert!(
                SINGLE.contains(from),
                "{rule}: `{from}` is not in the config"
            );
            SINGLE.replacen(from, to, 1)
        };
        let problems = match super::load_single(&text, &[]) {
            Ok(_) => panic!("{rule}: loads"),
            Err(problems) => problems,
        };
        all.push_str(&format!("# {rule}\n{problems}\n\n"));
    }
    all
}

#[test]
fn every_rule_has_its_text() {
    insta::assert_snapshot!("problems-of-sections", texts(SECTIONS));
    insta::assert_snapshot!("problems-of-connections", texts(CONNECTIONS));
    insta::assert_snapshot!("problems-of-jobs", texts(JOBS));
    insta::assert_snapshot!("problems-of-destinations", texts(DESTINATIONS));
    insta::assert_snapshot!("problems-of-objects", texts(OBJECTS));
}

#[test]
fn mistakes_of_all_files_come_together() {
    let fixture = Fixture::new(&[
        (
            "tributary.toml",
            "[admin]\nlisten = \"here\"\n\n[log]\nprefx = \"x\"\n",
        ),
        (
            "connections/acme.toml",
            "kind = \"salesforce\"\norg = \"https://acme.lightning.force.com\"\n",
        ),
        ("connections/acme.eu.toml", "kind = \"salesforce\"\n"),
        ("connections/broken.toml", "kind = \"salesforce\norg = [\n"),
        (
            "jobs/acme/a.toml",
            "source = \"Account\"\n[to.Company]\nidentifiers = [\"name\"]\nmap = { nme = \"Name\" }\n",
        ),
        (
            "jobs/acme/b.toml",
            "source = \"Account\"\n[to.Company]\nidentifiers = [\"name\"]\nmap = { name = \"Name\" }\n",
        ),
        (
            "jobs/broken/c.toml",
            "source = \"Case\"\n[to.Case]\nidentifiers = [\"external_id\"]\nmap = { external_id = \"CaseNumber\" }\n",
        ),
        (
            "jobs/acne/d.toml",
            "source = \"Case\"\n[to.Case]\nidentifiers = [\"external_id\"]\nmap = { external_id = \"CaseNumber\" }\n",
        ),
        ("jobs/e.toml", ""),
        ("jobs/acme/f.tml", ""),
        ("chain/acme/g.toml", ""),
        ("objects/asset.toml", "label = \"Asset\"\n"),
    ]);
    let environment = [
        ("TRIBUTARY__LOG__FORGET_AFTER", "soon"),
        (
            "TRIBUTARY__CONNECTION__ACNE__ORG",
            "https://a.my.salesforce.com",
        ),
        ("TRIBUTARY__ADMIN__LISTN", "127.0.0.1:1"),
    ];
    let problems = fixture.load("", &environment).unwrap_err();
    insta::assert_snapshot!("problems-of-many-files", problems);
}

/// A broken file hides its own content only: nothing is said of what might stand in it.
#[test]
fn a_broken_file_makes_no_others_wrong() {
    let fixture = Fixture::new(&[
        ("tributary.toml", "[notify\n"),
        ("objects/company.toml", "label\n"),
        (
            "connections/acme.toml",
            &format!(
                "kind = \"salesforce\"\n{ORG}\n{AUTH}\nnotify = {{ failure = [\"revops\"] }}\n"
            ),
        ),
        (
            "jobs/acme/a.toml",
            "source = \"Account\"\n[to.Company]\nidentifiers = [\"shoe_size\"]\nmap = { shoe_size = \"S\" }\n",
        ),
    ]);
    let problems = fixture.load("", &[]).unwrap_err();
    let files: Vec<_> = problems
        .as_slice()
        .iter()
        .map(|problem| &*problem.spot.file)
        .collect();
    assert_eq!(
        files,
        ["objects/company.toml", "tributary.toml"],
        "{problems}"
    );
}

#[test]
fn places_that_are_no_config() {
    let fixture = Fixture::new(&[
        ("empty/x.md", ""),
        ("big.toml", &format!("# {}\n", "x".repeat(1024 * 1024))),
        ("directory/tributary.toml/x", ""),
        (
            "twice/tributary.toml",
            "[connection.acme]\nkind = \"dynamics\"\n",
        ),
        ("twice/connections/acme.toml", "kind = \"salesforce\"\n"),
    ]);
    std::fs::write(fixture.folder.path().join("latin.toml"), b"# a\n# \xe9\n").unwrap();
    for (name, text) in [
        ("missing", "can't be read"),
        ("empty", "tributary.toml: is missing"),
        ("big.toml", "big.toml: is larger than 1 MiB"),
        ("latin.toml", "latin.toml:2: is no UTF-8"),
        ("directory", "tributary.toml: is no file"),
        (
            "twice",
            "connections/acme.toml:1: stands in tributary.toml:1: `connection.acme` as well",
        ),
    ] {
        let problems = fixture.load(name, &[]).unwrap_err().to_string();
        assert!(problems.contains(text), "{name}: {problems}");
    }
}

/// What has no effect in this version is noted, not passed over.
#[test]
fn settings_without_effect_are_noted() {
    let text = format!(
        "{}{}",
        SINGLE
            .replace(
                USER,
                "source = \"User\"\nschedule = \"daily 02:00\"\nsync = \"full\"\ndigest = \"1h\"\nfreshness = \"5m\"\n\
                 depends_on = [\"company_sync\"]\nbrakes = { max_delete_percent = 5 }\nnotify = { failure = [\"revops\"] }\n\
                 refresh = \"full_sync\"\non_move = \"update\"\n",
            )
            .replace(ORG, &format!("{ORG}\noob = {{ catalog = 1, jobs = \"none\" }}\ncompany_resolution = {{ salesforce_account_id = \"Id\" }}")),
        "[mail]\nsmtp = \"smtps://mail.example:465\"\n[notify]\nrevops = { mail = [\"revops@example.com\"] }\n\
         beat = { webhook = { env = \"BEAT\" }, every = \"1m\" }\n\
         [chain.acme.nightly]\nname = \"Nightly\"\njobs = [\"user_sync\"]\nschedule = \"daily 02:00\"\non_failure = \"stop\"\n"
    );
    let config = super::load_single(&text, &[]).unwrap();
    let notes: Vec<String> = config.notes.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!("notes", notes.join("\n"));
}

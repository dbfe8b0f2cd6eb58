//! Broken sections, connections and jobs.

use super::{AUTH, Case, ORG, USER};

pub const SECTIONS: &[Case] = &[
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
        "state is shared by daemons that share all else",
        "",
        "[state]\nurl = \"postgres://me@db.example/state\"\nlease = \"1s\"\n",
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
    ("log url, unknown", "", "[log]\nurl = \"file:log\"\n"),
    ("log url, no broker", "", "[log]\nurl = \"kafka://\"\n"),
    (
        "log url, a broker's port",
        "",
        "[log]\nurl = \"kafka://a:9092,b:port\"\n",
    ),
    (
        "log url, a password",
        "",
        "[log]\nurl = \"kafka://me:hunter2@broker:9092\"\n",
    ),
    (
        "log kafka and replication, without a cluster",
        "",
        "[log]\nreplication = 3\nkafka = { \"security.protocol\" = \"ssl\" }\n",
    ),
    (
        "log replication",
        "",
        "[log]\nurl = \"kafka://b\"\nreplication = 0\n",
    ),
    (
        "log kafka, no table",
        "",
        "[log]\nurl = \"kafka://b\"\nkafka = 3\n",
    ),
    (
        "log kafka, what would lose data",
        "",
        "[log]\nurl = \"kafka://b\"\n[log.kafka]\nacks = 1\n\"enable.idempotence\" = false\n\
         group.id = \"mine\"\n\"auto.offset.reset\" = { env = \"RESET\" }\n",
    ),
    (
        "log kafka, secrets in the config",
        "",
        "[log]\nurl = \"kafka://b\"\n[log.kafka]\nsasl.password = \"hunter2\"\nssl.key.pem = \"hunter2\"\n",
    ),
    (
        "log kafka, a list",
        "",
        "[log]\nurl = \"kafka://b\"\n[log.kafka]\ndebug = [\"hunter2\"]\n",
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
        "target, a password in the URL",
        "",
        "[target]\nurl = \"postgres://me:pw@host/db\"\n",
    ),
    (
        "target, postgres, every key wrong",
        "",
        "[target]\nurl = \"postgres://db.example/store\"\npassword = \"hunter2\"\nssl_mode = \"allow\"\nstatement_timeout = \"soon\"\nwriters = 0\nschema = \"Store\"\nledger_schema = \"pg_ledger\"\nca_flie = \"ca.pem\"\n",
    ),
    (
        "target, postgres, one schema for both",
        "",
        "[target]\nurl = \"postgres://me@db.example/store\"\nledger_schema = \"store\"\n",
    ),
    (
        "target, postgres, an authority nobody asks",
        "",
        "[target]\nurl = \"postgres://me@db.example/store\"\nssl_mode = \"require\"\nca_file = \"ca.pem\"\n",
    ),
    (
        "target, postgres, sslmode twice",
        "",
        "[target]\nurl = \"postgres://me@db.example/store?sslmode=require\"\nssl_mode = \"verify-full\"\n",
    ),
    (
        "target, postgres, parameter",
        "",
        "[target]\nurl = \"postgres://me@db.example/store?sslrootcert=ca.pem\"\n",
    ),
    (
        "target, postgres, no database",
        "",
        "[target]\nurl = \"postgres://me@db.example\"\n",
    ),
    (
        "target, postgres, no port",
        "",
        "[target]\nurl = \"postgres://me@db.example:pg/store\"\n",
    ),
    (
        "target, keys of postgres with a file",
        "",
        "[target]\nurl = \"sqlite:store.db\"\npassword = { env = \"PW\" }\nschema = \"store\"\n",
    ),
    (
        "target, tenant",
        "",
        "[target]\nurl = \"gainsight:https://acme.gainsightcloud.com\"\n",
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
    (
        "smtp",
        "",
        "[mail]\nsmtp = \"mail.example:465\"\nfrom = \"sync@example.com\"\n",
    ),
    (
        "mail, half a login",
        "",
        "[mail]\nsmtp = \"smtps://mail.example\"\nfrom = \"sync\"\nuser = \"sync\"\n",
    ),
    (
        "mail, a password in plain text",
        "",
        "[mail]\nsmtp = \"smtp://mail.example\"\nfrom = \"sync@example.com\"\nuser = \"sync\"\npassword = { env = \"PW\" }\nplain_text = true\n",
    ),
    (
        "notify, mail without a server",
        "",
        "[notify]\nrevops = { mail = [\"revops@example.com\"] }\n",
    ),
    (
        "notify, a beat without a webhook",
        "",
        "[mail]\nsmtp = \"smtps://mail.example\"\nfrom = \"sync@example.com\"\n[notify]\nrevops = { mail = [\"revops@example.com\"], every = \"1m\" }\n",
    ),
    (
        "notify, nothing",
        "",
        "[notify]\nrevops = { every = \"1m\" }\n",
    ),
    (
        "notify, an address",
        "",
        "[mail]\nsmtp = \"smtps://mail.example\"\nfrom = \"sync@example.com\"\n[notify]\nrevops = { mail = [\"revops\"] }\n",
    ),
];

pub const CONNECTIONS: &[Case] = &[
    ("id", "connection.acme]", "connection.\"acme.eu\"]"),
    ("kind missing", "kind = \"salesforce\"", ""),
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
    ("auth flow, later", "client_credentials", "device_code"),
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
        "channel",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\nchannel = \"/data/AccountChangeEvent\"",
    ),
    (
        "transport, unknown",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\ntransport = \"poll\"",
    ),
    (
        "pubsub_address",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\npubsub_address = \"http://api.pubsub.salesforce.com:7443\"",
    ),
    (
        "stream_silence",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\nstream_silence = \"4m\"",
    ),
    (
        "oob",
        ORG,
        "org = \"https://acme.my.salesforce.com\"\noob = { jobs = \"all\" }",
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
        "budget",
        "org = \"https://acme.my.salesforce.com\"",
        "org = \"https://acme.my.salesforce.com\"\nbudget = { reserve = \"100%\", per_second = 0, at_onc = 3 }",
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

pub const JOBS: &[Case] = &[
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
        "source = \"User\"\nrealtime_fields = \"Name\"\n",
    ),
    (
        "refresh",
        USER,
        "source = \"User\"\nrefresh = \"on_chance\"\n",
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

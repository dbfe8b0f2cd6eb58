//! The arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Keeps a customer-success store in step with its CRMs in real time.
#[derive(Debug, Parser)]
#[command(name = "tributary", version, about, propagate_version = true)]
pub(super) struct Arguments {
    /// The config: a directory, or a single file.
    #[arg(
        long,
        short,
        global = true,
        default_value = ".",
        env = "TRIBUTARY_CONFIG"
    )]
    pub config: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to log: a level, or `module=level` pairs.
    #[arg(long, global = true, default_value = "info", env = "TRIBUTARY_LOG")]
    pub log: String,
    /// Log JSON lines.
    #[arg(long, global = true, env = "TRIBUTARY_LOG_JSON")]
    pub log_json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon.
    Serve,
    /// Write a first config, commented: what no flag says is asked on a terminal. Nothing is overwritten.
    Init(InitOptions),
    /// Have a person authorise a connection, or end its authorisation.
    Auth(AuthOptions),
    /// Check the config and run its mapping tests, offline; or with it log, target and orgs.
    Check(CheckOptions),
    /// Everything on one machine: a simulated org with changes, the daemon, a store, a page.
    Demo(DemoOptions),
    /// Print rows of a stored object, newest first.
    Rows {
        /// The object: its label or its table.
        object: String,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Print what may have been missed and is not repaired yet.
    Holes {
        /// Closed ones too.
        #[arg(long)]
        all: bool,
    },
    /// Print the dead letters, newest first, and how many records wait for a decision.
    Errors(ErrorsOptions),
    /// Print the runs of jobs, those that began last first: full syncs, and the real-time changes of each day.
    Runs {
        /// A connection, or CONNECTION/JOB.
        of: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Records that fit several rows: which they are, and what a person decides of them.
    #[command(subcommand)]
    Review(ReviewCommand),
    /// Print a record's way: image, versions, rows.
    Explain {
        /// The connection.
        connection: String,
        /// The CRM object.
        object: String,
        /// The record's id.
        record: String,
    },
    /// Print the jobs of the running daemon: what each does, how late it is, why it is paused.
    Jobs {
        #[command(flatten)]
        daemon: DaemonOptions,
    },
    /// Compare the records of the CRM with what images and store hold of them; changes nothing.
    Verify(VerifyOptions),
    /// Have every record read again now: a full sync of an object, or of all objects of a connection.
    Sync(SyncOptions),
    /// See how a connection's objects are described, and have the CRM describe them anew.
    #[command(subcommand)]
    Metadata(MetadataCommand),
    /// Pause a job and have it go on; replay its topic beside the daemon, and see what differs.
    #[command(subcommand)]
    Job(JobCommand),
    /// Try whether those whom `[notify]` names are reached.
    #[command(subcommand)]
    Notify(NotifyCommand),
    /// Print the out-of-the-box jobs of a kind of CRM, or as a connection has them.
    Oob {
        /// `salesforce`, `dynamics`, or a connection.
        of: String,
        /// One job, as a file would have it.
        job: Option<String>,
    },
    /// Have a Dynamics environment push its changes, or no longer.
    #[command(subcommand)]
    Dynamics(DynamicsCommand),
    /// Say which objects a Salesforce org tells changes of.
    #[command(subcommand)]
    Salesforce(SalesforceCommand),
    /// Look at topics, and move them to and from files.
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Ask a running daemon whether it is alive, for container health checks.
    Health {
        /// Where it listens.
        #[arg(long, default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// Run a simulated CRM.
    #[command(subcommand)]
    Sim(SimCommand),
}

#[derive(Debug, Args)]
pub(super) struct InitOptions {
    /// `salesforce` or `dynamics`.
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// The connection's id: a short name of the org (`acme`).
    #[arg(long, value_name = "ID")]
    pub connection: Option<String>,
    /// The org: its My Domain URL, or the environment's URL.
    #[arg(long, value_name = "URL")]
    pub org: Option<String>,
    /// The app's consumer key, or the application's id.
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// How to sign in: `client_credentials`, or `authorization_code` for a person who agrees once.
    #[arg(long, value_name = "FLOW")]
    pub flow: Option<String>,
    /// The variable of the environment that holds the secret; the connection's id and `_SECRET`, if none is named.
    #[arg(long, value_name = "NAME", conflicts_with = "secret_file")]
    pub secret_env: Option<String>,
    /// The file that holds the secret.
    #[arg(long, value_name = "PATH")]
    pub secret_file: Option<String>,
    /// Out-of-the-box jobs: `all`, `second`, `none`, or their ids.
    #[arg(long, value_name = "JOBS", value_delimiter = ',')]
    pub jobs: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct CheckOptions {
    /// Sign in to every connection, or to one, and look at what the daemon will stand on; nothing is written.
    #[arg(long, value_name = "CONNECTION")]
    pub live: Option<Option<String>>,
}

#[derive(Debug, Args)]
pub(super) struct DaemonOptions {
    /// The daemon's address, in place of the config's `[admin] listen`; its token is read from TRIBUTARY_TOKEN then.
    #[arg(long)]
    pub url: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ErrorsOptions {
    /// Only those of a job: CONNECTION/JOB.
    #[arg(long)]
    pub job: Option<String>,
    /// Only those of a run, as `tributary runs` prints it.
    #[arg(long)]
    pub run: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 20, conflicts_with = "csv")]
    pub limit: usize,
    /// Write all of them to a file, with the fields of each record; `-` is the standard output.
    #[arg(long)]
    pub csv: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyOptions {
    /// The connection.
    pub connection: String,
    /// The CRM object; all that jobs select, if none is named.
    pub object: Option<String>,
    /// Only so many records of each object, by chance, read by id.
    #[arg(long)]
    pub sample: Option<usize>,
    /// How many seconds a change may be on its way before a record that differs is looked at again.
    #[arg(long, default_value_t = 10)]
    pub wait: u64,
    /// Print so many of each object's records that differ; all are counted.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct SyncOptions {
    /// The connection.
    pub connection: String,
    /// The CRM object; all that jobs select, if none is named.
    pub object: Option<String>,
    /// Read only so many records of each object. The first sync of an object waits then until `sync` is run without
    /// a limit. Before the daemon runs it is kept for its start.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Ask for it, and don't wait for its end.
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub daemon: DaemonOptions,
}

#[derive(Debug, Subcommand)]
pub(super) enum MetadataCommand {
    /// Print when each object was described, and which fields of jobs it no longer has.
    List {
        /// The connection.
        connection: String,
        #[command(flatten)]
        daemon: DaemonOptions,
    },
    /// Have every object described anew, and wait until it is.
    Refresh {
        /// The connection.
        connection: String,
        /// Ask for it, and don't wait for its end.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        daemon: DaemonOptions,
    },
}

#[derive(Debug, Args)]
pub(super) struct AuthOptions {
    /// The connection.
    pub connection: String,
    /// Read the address that the browser ends at from the standard input: for containers and other machines.
    #[arg(long, conflicts_with = "revoke")]
    pub paste: bool,
    /// Delete the token, and revoke it at the CRM where that is possible.
    #[arg(long)]
    pub revoke: bool,
}

#[derive(Debug, Args)]
pub(super) struct DemoOptions {
    /// Where the org, the log and the store are kept.
    #[arg(long, default_value = ".tributary/demo")]
    pub dir: PathBuf,
    /// Where the page is served.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: std::net::SocketAddr,
    /// Changes a second that the simulated org makes.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// Accounts that the simulated org begins with.
    #[arg(long, default_value_t = 200)]
    pub accounts: usize,
    /// End after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Have a job apply nothing until it is told to go on, on every daemon, restarts included.
    Pause {
        /// CONNECTION/JOB.
        job: String,
        /// Why, for whoever wonders.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        daemon: DaemonOptions,
    },
    /// Have a paused job go on where it stopped.
    Resume {
        /// CONNECTION/JOB.
        job: String,
        /// Yes to what a brake stopped the job for: all of a full sync, else what lay in the topic then.
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        daemon: DaemonOptions,
    },
    /// Ask the identifiers, as they are now, which rows the records are; after they were changed.
    Rematch {
        /// CONNECTION/JOB.
        job: String,
        /// Only say which associations would change.
        #[arg(long)]
        dry_run: bool,
        /// Print so many of them; all are counted.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        daemon: DaemonOptions,
    },
    /// Print what the config, as it is now, would change in the store; writes to a scratch store and removes it.
    Preview {
        /// CONNECTION/JOB, or CONNECTION for all of its jobs.
        job: String,
        /// Print so many of the records that differ; all are counted.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Read the topic again, without a CRM call: into the live tables, or into a scratch store to see what differs.
    Replay {
        /// CONNECTION/JOB, or CONNECTION for all of its jobs.
        job: String,
        /// The scratch store: a schema in PostgreSQL, a file under `data_dir`/scratch with SQLite.
        ///
        /// Without it the running daemon replays into the live tables.
        #[arg(long)]
        into: Option<String>,
        /// Where to begin: `start`, a time (RFC 3339), or an offset in every partition.
        #[arg(long, default_value = "start")]
        from: String,
        /// Replace a scratch store of that name.
        #[arg(long, requires = "into")]
        replace: bool,
        /// Print so many of the records that differ; all are counted.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Into the live tables: do it. Without it, only what would be done is printed.
        #[arg(long, conflicts_with_all = ["into", "stop"])]
        yes: bool,
        /// End the replay into the live tables that is under way; what it has applied stays.
        #[arg(long, conflicts_with = "into")]
        stop: bool,
        #[command(flatten)]
        daemon: DaemonOptions,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ReviewCommand {
    /// Print what waits for a decision, with the rows it may be, oldest first.
    List {
        /// Only those of a job: CONNECTION/JOB.
        #[arg(long)]
        job: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Say which row a record is.
    Bind {
        #[command(flatten)]
        of: Decision,
        /// The row.
        gsid: uuid::Uuid,
    },
    /// Say that a record is none of the rows: it gets one of its own.
    Create {
        #[command(flatten)]
        of: Decision,
    },
    /// Say that a record gets no row.
    Ignore {
        #[command(flatten)]
        of: Decision,
    },
    /// Take back what was said of a record: its identifiers are asked again.
    Unbind {
        #[command(flatten)]
        of: Decision,
    },
    /// Print what was decided and holds.
    Bindings,
}

#[derive(Debug, Args)]
pub(super) struct Decision {
    /// The connection.
    pub connection: String,
    /// The CRM object.
    pub object: String,
    /// The record's id.
    pub record: String,
    /// The stored object, by label or table; the one that the record waits for, if none is named.
    #[arg(long)]
    pub destination: Option<String>,
    #[command(flatten)]
    pub daemon: DaemonOptions,
}

#[derive(Debug, Subcommand)]
pub(super) enum NotifyCommand {
    /// Send a message to everybody of a name, and print what was answered.
    Test {
        /// The name, as `[notify]` has it.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DynamicsCommand {
    /// The service endpoint and its steps.
    #[command(subcommand)]
    Webhook(WebhookCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum WebhookCommand {
    /// Register the webhook for every table that jobs select, or bring it up to date.
    Add {
        /// The connection.
        connection: String,
        /// Where the environment reaches the daemon, in place of the config's: https://HOST.
        #[arg(long)]
        url: Option<String>,
    },
    /// Remove the webhook.
    Remove {
        /// The connection.
        connection: String,
    },
    /// Print what is registered.
    List {
        /// The connection.
        connection: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SalesforceCommand {
    /// Print which objects are selected for change data capture, beside those that jobs select; select and release some.
    Capture {
        /// The connection.
        connection: String,
        /// Select these objects.
        #[arg(long, value_name = "OBJECT", num_args = 1..)]
        add: Vec<String>,
        /// Release these objects.
        #[arg(long, value_name = "OBJECT", num_args = 1..)]
        remove: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TopicsCommand {
    /// List topics with their bounds.
    List,
    /// Write a topic to a file, a JSON object a line.
    Export {
        /// The topic.
        topic: String,
        /// The file.
        file: PathBuf,
    },
    /// Append a file's records to a topic.
    Import {
        /// The topic.
        topic: String,
        /// The file.
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SimCommand {
    /// A Salesforce org.
    Salesforce(Box<tributary_sim::salesforce::SimOptions>),
    /// A Dynamics 365 organization.
    Dynamics(Box<tributary_sim::dynamics::SimOptions>),
}

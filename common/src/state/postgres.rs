//! Launches in PostgreSQL: shared by all processes of several machines.
//!
//! The client is asynchronous, and may not run inside a server's own runtime: it has a thread with one of its own. A handler hands its request
//! over and waits, so its thread is blocked as by any database call. Flights are numbered by a row that a transaction locks until it commits; a
//! sequence would leave gaps where transactions fail.

use super::{Backend, Failure, Launch, NewLaunch, Page};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime as Timers};
use rustls::RootCertStore;
use std::error::Error;
use std::fmt::Write;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Connections of a process.
pub(crate) const CONNECTIONS: usize = 8;
/// The longest wait for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The schema of this program, which a table of the database holds.
const SCHEMA: i32 = 1;
/// The lock under which one process creates what is missing, in the database's list of such locks.
const LOCK: i64 = 0x7374_616c_6c62;

const CREATE: &str = "
CREATE TABLE stallbench (schema integer NOT NULL, last_flight bigint NOT NULL);
INSERT INTO stallbench VALUES (1, 0);
CREATE TABLE launches (
    flight_number bigint PRIMARY KEY,
    mission text NOT NULL,
    rocket text NOT NULL,
    launch_date text NOT NULL,
    target text NOT NULL,
    customers text[] NOT NULL,
    upcoming boolean NOT NULL,
    success boolean NOT NULL
)";
const IS_CREATED: &str = "SELECT to_regclass('stallbench') IS NOT NULL";
const READ_SCHEMA: &str = "SELECT schema FROM stallbench";
const LIST: &str = "SELECT * FROM launches WHERE flight_number BETWEEN $1 AND $2 ORDER BY flight_number";
const ONE: &str = "SELECT * FROM launches WHERE flight_number = $1";
const ADD: &str = "WITH next AS (UPDATE stallbench SET last_flight = last_flight + 1 RETURNING last_flight)
    INSERT INTO launches SELECT last_flight, $1, $2, $3, $4, $5, $6, $7 FROM next RETURNING flight_number";
const ABORT: &str = "UPDATE launches SET upcoming = false, success = false WHERE flight_number = $1 RETURNING *";

pub(super) struct Postgres {
    pool: Pool,
    runtime: Handle,
}

impl Postgres {
    /// Connects, and creates the tables if they are missing.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        let mut config = config.clone();
        let options = options(&config);
        config.connect_timeout(PATIENCE).application_name("stallbench").options(options);
        if let (None, Ok(password)) = (config.get_password(), std::env::var("PGPASSWORD")) {
            config.password(password);
        }
        let postgres = Postgres { pool: pool(config)?, runtime: run_in_background()? };
        postgres.call(prepare)?;
        postgres.ping()?;
        Ok(postgres)
    }

    /// Does something on a connection, and waits for the outcome.
    fn call<T, F>(&self, work: impl FnOnce(Object) -> F + Send + 'static) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send,
        T: Send + 'static,
    {
        let (tell, told) = sync_channel(1);
        let pool = self.pool.clone();
        self.runtime.spawn(async move {
            let done = async {
                let connection = pool.get().await.map_err(|error| Failure(chain(&error)))?;
                work(connection).await.map_err(|error| Failure(chain(&error)))
            };
            let outcome = tokio::time::timeout(2 * PATIENCE, done).await;
            // Whoever asked waits for it.
            let _ = tell.send(outcome.unwrap_or_else(|_| Err(Failure("no answer in time".into()))));
        });
        told.recv().unwrap_or_else(|_| Err(Failure("the client has ended".into())))
    }
}

/// Settings of each connection: the server gives a statement up that takes too long, so that its locks do not outlive our patience.
fn options(config: &Config) -> String {
    let mut options = config.get_options().unwrap_or_default().to_owned();
    let limit = PATIENCE.as_millis();
    // Writing into a string does not fail.
    let _ = write!(options, " -c statement_timeout={limit} -c lock_timeout={limit}");
    options.trim_start().to_owned()
}

fn pool(config: Config) -> Result<Pool, Failure> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => Manager::from_config(config, NoTls, recycling),
        _ => Manager::from_config(config, tls()?, recycling),
    };
    let pool = Pool::builder(manager).max_size(CONNECTIONS).runtime(Timers::Tokio1);
    let pool = pool.wait_timeout(Some(PATIENCE)).create_timeout(Some(PATIENCE)).recycle_timeout(Some(PATIENCE));
    pool.build().map_err(|error| Failure(chain(&error)))
}

/// TLS that trusts the certificates of this machine, or of `SSL_CERT_FILE`.
fn tls() -> Result<MakeRustlsConnect, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Failure(error.to_string()))?.with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// A thread that runs what is spawned on it until the process ends.
fn run_in_background() -> Result<Handle, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| Failure(error.to_string()))?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("postgres".into()).spawn(run).map_err(|error| Failure(error.to_string()))?;
    Ok(handle)
}

/// An error with its causes: the client's own words say only what it was doing. They hold no password.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error: &&dyn Error| (*error).source());
    let mut words: Vec<String> = causes.map(|error| error.to_string().replace('\n', " ")).collect();
    words.dedup_by(|next, before| before.contains(next.as_str()));
    words.join(": ")
}

/// Creates the tables if they are missing. Of several processes the first does; the others wait for it.
async fn prepare(mut connection: Object) -> Result<(), tokio_postgres::Error> {
    let transaction = connection.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    if !transaction.query_one(IS_CREATED, &[]).await?.get::<_, bool>(0) {
        transaction.batch_execute(CREATE).await?;
    }
    transaction.commit().await
}

impl Backend for Postgres {
    fn list(&self, page: Page) -> Result<Vec<Launch>, Failure> {
        let (first, last) = page.flights().into_inner();
        self.call(async move |connection| {
            let list = connection.prepare_cached(LIST).await?;
            connection.query(&list, &[&first, &last]).await?.iter().map(launch).collect()
        })
    }

    fn one(&self, flight: i64) -> Result<Option<Launch>, Failure> {
        self.call(async move |connection| {
            let one = connection.prepare_cached(ONE).await?;
            connection.query_opt(&one, &[&flight]).await?.as_ref().map(launch).transpose()
        })
    }

    fn add(&self, new: NewLaunch) -> Result<Launch, Failure> {
        self.call(async move |connection| {
            let add = connection.prepare_cached(ADD).await?;
            let NewLaunch { mission, rocket, launch_date, target, customers, upcoming, success } = &new;
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
                [mission, rocket, launch_date, target, customers, upcoming, success];
            let flight_number = connection.query_one(&add, &values).await?.try_get(0)?;
            Ok(Launch { flight_number, chosen: new })
        })
    }

    fn abort(&self, flight: i64) -> Result<Option<Launch>, Failure> {
        self.call(async move |connection| {
            let abort = connection.prepare_cached(ABORT).await?;
            connection.query_opt(&abort, &[&flight]).await?.as_ref().map(launch).transpose()
        })
    }

    fn ping(&self) -> Result<(), Failure> {
        let schema: i32 = self.call(async move |connection| {
            let schema = connection.prepare_cached(READ_SCHEMA).await?;
            connection.query_one(&schema, &[]).await?.try_get(0)
        })?;
        super::check_schema(schema.into(), SCHEMA.into(), "database")
    }
}

fn launch(row: &Row) -> Result<Launch, tokio_postgres::Error> {
    Ok(Launch {
        flight_number: row.try_get("flight_number")?,
        chosen: NewLaunch {
            mission: row.try_get("mission")?,
            rocket: row.try_get("rocket")?,
            launch_date: row.try_get("launch_date")?,
            target: row.try_get("target")?,
            customers: row.try_get("customers")?,
            upcoming: row.try_get("upcoming")?,
            success: row.try_get("success")?,
        },
    })
}

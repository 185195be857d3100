//! Finding out: all that is asked of this machine and of AWS, before anything is judged.

use std::collections::{BTreeMap, BTreeSet};

use super::line::{Tried, Untold};
use crate::aws::{
    Account, Cause, Clients, Credentials, Difference, Endpoint, Identity, Probe, Settings, Survey,
};
use crate::clock::Offset;
use crate::config::Config;
use crate::queue::Queue;
use crate::store::Consumed;
use crate::{daemon, descriptors, usage};

/// Everything that was found out.
#[derive(Clone, Debug)]
pub(super) struct Findings {
    pub(super) machine: Machine,
    /// The region, or that there is none.
    pub(super) region: Result<String, String>,
    pub(super) credentials: Tried<Credentials>,
    pub(super) identity: Tried<Identity>,
    pub(super) dynamodb: Tried<Endpoint>,
    pub(super) table: Table,
    pub(super) lambda: Tried<Endpoint>,
    /// By the names that the queues call them.
    pub(super) functions: BTreeMap<String, Function>,
    pub(super) account: Tried<Account>,
    /// Nothing when AWS has not told the time.
    pub(super) clock: Option<Offset>,
}

/// What this machine allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    /// Descriptors that a process has, and may have.
    pub(super) descriptors: (u64, u64),
    /// Bytes, if they are limited.
    pub(super) memory: Option<u64>,
}

/// What was found out about the table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) survey: Tried<Survey>,
    pub(super) ttl: Tried<Option<Difference>>,
    pub(super) read: Tried<()>,
    pub(super) update: Tried<()>,
    /// By queue.
    pub(super) queries: BTreeMap<String, Tried<()>>,
}

/// What was found out about a function.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub(super) invoke: Tried<()>,
    pub(super) settings: Tried<Settings>,
    pub(super) reserved: Tried<Option<u32>>,
}

impl Table {
    fn not_tried(config: &Config, why: &'static str) -> Self {
        let queues = config.queues.iter().map(|queue| queue.name.clone());
        Table {
            survey: Err(Untold::NotTried(why)),
            ttl: Err(Untold::NotTried(why)),
            read: Err(Untold::NotTried(why)),
            update: Err(Untold::NotTried(why)),
            queries: queues.map(|name| (name, Err(Untold::NotTried(why)))).collect(),
        }
    }

    async fn find(probe: &Probe, config: &Config) -> Self {
        let survey = probe.survey().await;
        if let Err(fault) = &survey
            && Cause::of(fault) == Cause::Missing
        {
            let not_tried = Table::not_tried(config, "there is no table");
            return Table { survey: survey.map_err(Untold::from), ..not_tried };
        }
        let (read, update) = match &survey {
            Ok(survey) => (
                probe.try_read(survey).await.map_err(Untold::from),
                probe.try_update(survey).await.map_err(Untold::from),
            ),
            Err(_) => {
                let why = "the table's keys are not known";
                (Err(Untold::NotTried(why)), Err(Untold::NotTried(why)))
            }
        };
        let has_index =
            survey.as_ref().is_ok_and(|it| it.differences.iter().all(|it| !it.is_fatal));
        let mut queries = BTreeMap::new();
        for queue in &config.queues {
            let query = match (&survey, has_index) {
                (Ok(_), false) => Err(Untold::NotTried("the index is not as needed")),
                _ => {
                    let shard = &Queue::shards(&queue.name, queue.shards)[0];
                    probe.try_query(shard, probe.clock().now()).await.map_err(Untold::from)
                }
            };
            queries.insert(queue.name.clone(), query);
        }
        let ttl = probe.ttl().await.map_err(Untold::from);
        Table { survey: survey.map_err(Untold::from), ttl, read, update, queries }
    }
}

impl Function {
    fn not_tried(why: &'static str) -> Self {
        Function {
            invoke: Err(Untold::NotTried(why)),
            settings: Err(Untold::NotTried(why)),
            reserved: Err(Untold::NotTried(why)),
        }
    }

    async fn find(probe: &Probe, name: &str) -> Self {
        Function {
            invoke: probe.try_invoke(name).await.map_err(Untold::from),
            settings: probe.settings(name).await.map_err(Untold::from),
            reserved: probe.reserved(name).await.map_err(Untold::from),
        }
    }
}

impl Findings {
    /// Asks everything that can be asked; and what that has cost.
    pub(super) async fn find(config: &Config) -> (Findings, Consumed) {
        let machine = Machine { descriptors: descriptors::limits(), memory: usage::memory_limit() };
        let probe = match Clients::new(&daemon::place(&config.aws)).await {
            Ok(clients) => clients.probe(&config.table),
            Err(error) => {
                let why = "there is no region";
                let region = Err(error.to_string());
                return (Findings::not_tried(config, machine, region, why), Consumed::default());
            }
        };
        let region = Ok(probe.region().to_owned());
        let credentials = probe.credentials().await;
        let Ok(credentials) = credentials else {
            let why = "there are no credentials";
            let none = Findings::not_tried(config, machine, region, why);
            let credentials = credentials.map_err(Untold::from);
            return (Findings { credentials, ..none }, Consumed::default());
        };
        // The first answer tells the time, by which everything else is signed.
        let dynamodb = probe.dynamodb().await;
        let table = async {
            match &dynamodb {
                Ok(_) => Table::find(&probe, config).await,
                Err(_) => Table::not_tried(config, "DynamoDB does not answer"),
            }
        };
        let functions = functions(&probe, config);
        let (identity, table, (lambda, functions, account)) =
            tokio::join!(probe.identity(), table, functions);
        let findings = Findings {
            machine,
            region,
            credentials: Ok(credentials),
            identity: identity.map_err(Untold::from),
            dynamodb: dynamodb.map_err(Untold::from),
            table,
            lambda,
            functions,
            account,
            clock: probe.clock().offset(),
        };
        (findings, probe.consumed())
    }

    /// What is known of the machine alone.
    fn not_tried(
        config: &Config,
        machine: Machine,
        region: Result<String, String>,
        why: &'static str,
    ) -> Self {
        let functions = names(config).into_iter();
        Findings {
            machine,
            region,
            credentials: Err(Untold::NotTried(why)),
            identity: Err(Untold::NotTried(why)),
            dynamodb: Err(Untold::NotTried(why)),
            table: Table::not_tried(config, why),
            lambda: Err(Untold::NotTried(why)),
            functions: functions.map(|name| (name, Function::not_tried(why))).collect(),
            account: Err(Untold::NotTried(why)),
            clock: None,
        }
    }
}

/// The functions that queues run, each once.
fn names(config: &Config) -> BTreeSet<String> {
    config.queues.iter().map(|queue| queue.function.clone()).collect()
}

/// All that Lambda tells.
async fn functions(
    probe: &Probe,
    config: &Config,
) -> (Tried<Endpoint>, BTreeMap<String, Function>, Tried<Account>) {
    let names = names(config);
    let first = names.first().expect("a valid configuration has a queue");
    let lambda = probe.lambda(first).await.map_err(Untold::from);
    if lambda.is_err() {
        let why = "Lambda does not answer";
        let functions = names.into_iter().map(|name| (name, Function::not_tried(why)));
        return (lambda, functions.collect(), Err(Untold::NotTried(why)));
    }
    let account = probe.account().await.map_err(Untold::from);
    // One after another: Lambda allows few such calls in a second, and the daemons make some, too.
    let mut functions = BTreeMap::new();
    for name in names {
        let function = Function::find(probe, &name).await;
        functions.insert(name, function);
    }
    (lambda, functions, account)
}

//! Functions: how they are set, and whether we may run them. None is run.

use std::time::Duration;

use aws_sdk_lambda::types::InvocationType;

use super::{Endpoint, Probe, ask, ask_again, measure};
use crate::aws::invoker::without_qualifier;
use crate::store::Fault;

const INVOKE: &str = "lambda:InvokeFunction";

/// A function's own settings, in Lambda's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether it can be run: `Active` is well.
    pub state: Option<String>,
    /// Why it is not active.
    pub state_reason: Option<String>,
    /// What became of the last change: `Successful` is well.
    pub update: Option<String>,
    /// Why it failed.
    pub update_reason: Option<String>,
    /// The longest it may run.
    pub timeout: Duration,
}

/// What all functions of the account may do together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Calls that run at once.
    pub concurrency: Option<u32>,
    /// As many of them as no function has for itself.
    pub unreserved: Option<u32>,
}

impl Probe {
    /// How far away Lambda is, by calls of a function that do not run it.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn lambda(&self, function: &str) -> Result<Endpoint, Fault> {
        measure(INVOKE, &self.clients.transport, async || {
            let request = self.clients.lambda.invoke().function_name(function);
            request.invocation_type(InvocationType::DryRun).send().await
        })
        .await
    }

    /// Whether we may run a function.
    ///
    /// # Errors
    ///
    /// When we may not, or there is none.
    pub async fn try_invoke(&self, function: &str) -> Result<(), Fault> {
        let request = self.clients.lambda.invoke().function_name(function);
        let request = request.invocation_type(InvocationType::DryRun);
        ask_again(async || ask(INVOKE, request.clone().send()).await).await.map(drop)
    }

    /// A function's own settings.
    ///
    /// # Errors
    ///
    /// When they are not told.
    pub async fn settings(&self, function: &str) -> Result<Settings, Fault> {
        let request = self.clients.lambda.get_function_configuration().function_name(function);
        let operation = "lambda:GetFunctionConfiguration";
        let output = ask_again(async || ask(operation, request.clone().send()).await).await?;
        // Lambda's own default, should it ever leave the field out.
        let seconds = output.timeout().and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(3);
        Ok(Settings {
            state: output.state().map(|state| state.as_str().to_owned()),
            state_reason: output.state_reason().map(str::to_owned),
            update: output.last_update_status().map(|status| status.as_str().to_owned()),
            update_reason: output.last_update_status_reason().map(str::to_owned),
            timeout: Duration::from_secs(seconds),
        })
    }

    /// The concurrency that a function has for itself, if it has.
    ///
    /// # Errors
    ///
    /// When it is not told.
    pub async fn reserved(&self, function: &str) -> Result<Option<u32>, Fault> {
        let request = self.clients.lambda.get_function_concurrency();
        let request = request.function_name(without_qualifier(function));
        let operation = "lambda:GetFunctionConcurrency";
        let output = ask_again(async || ask(operation, request.clone().send()).await).await?;
        Ok(output.reserved_concurrent_executions().and_then(|most| u32::try_from(most).ok()))
    }

    /// What all functions may do together.
    ///
    /// # Errors
    ///
    /// When it is not told.
    pub async fn account(&self) -> Result<Account, Fault> {
        let request = self.clients.lambda.get_account_settings();
        let operation = "lambda:GetAccountSettings";
        let output = ask_again(async || ask(operation, request.clone().send()).await).await?;
        let Some(limit) = output.account_limit else { return Ok(Account::default()) };
        Ok(Account {
            concurrency: u32::try_from(limit.concurrent_executions).ok().filter(|most| *most > 0),
            unreserved: limit.unreserved_concurrent_executions.and_then(|it| it.try_into().ok()),
        })
    }
}

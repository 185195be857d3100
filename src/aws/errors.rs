//! What an error of AWS means, by its error *code*. HTTP status says little: Lambda sends
//! permanent faults as 502.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};

use super::transport::TransportError;
use crate::invoker::{Failure, Outcome, Reason, Refusal, Throttle};
use crate::store::{Fault, StoreError};

/// What a failed DynamoDB call means. A refused condition is not an error, and does not come
/// here.
pub(super) fn store_error<E>(operation: &'static str, error: &SdkError<E, Response>) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let fault = fault(operation, error);
    let reaction = match error {
        SdkError::ServiceError(_) => store_reaction(operation, &fault.code),
        SdkError::ConstructionFailure(_) => StoreError::Rejected,
        _ => StoreError::Unavailable,
    };
    reaction(fault)
}

/// A failed call as it is told.
pub(super) fn fault<E>(operation: &'static str, error: &SdkError<E, Response>) -> Fault
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (code, message) = code_and_message(error);
    Fault { operation, code, message }
}

/// The calls that are about items, each by its name.
const ITEM_CALLS: [&str; 4] =
    ["dynamodb:UpdateItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:BatchWriteItem"];

/// The reaction to an error code of DynamoDB
/// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html).
/// A code nobody has heard of is waited out, and said.
fn store_reaction(operation: &str, code: &str) -> fn(Fault) -> StoreError {
    match code {
        "AccessDeniedException"
        | "NotAuthorized"
        | "OptInRequired"
        | "UnknownOperationException"
        | "ResourceNotFoundException"
        | "IndexNotFoundException" => StoreError::Refused,
        "ItemCollectionSizeLimitExceededException" => StoreError::Rejected,
        // Of one item's call it means that this item is wrong; of any other, that the table's
        // name is, or that the index is missing.
        "ValidationException" | "SerializationException" if ITEM_CALLS.contains(&operation) => {
            StoreError::Rejected
        }
        "ValidationException" | "SerializationException" => StoreError::Refused,
        _ => StoreError::Unavailable,
    }
}

/// What a call that was only tried lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A right.
    Denied,
    /// What it was about: the table, the index or the function.
    Missing,
    /// Credentials that AWS takes.
    Credentials,
    /// Patience: AWS answers, and has no capacity left for the call.
    Busy,
    /// AWS itself.
    Away,
    /// Sense, in AWS's eyes.
    Wrong,
}

impl Cause {
    /// What an error code says. One that nobody has heard of is nobody's fault here.
    pub fn of(fault: &Fault) -> Cause {
        match fault.code.as_str() {
            _ if fault.is_throttle() => Cause::Busy,
            "TooManyRequestsException" => Cause::Busy,
            "AccessDeniedException"
            | "AccessDenied"
            | "NotAuthorized"
            | "OptInRequired"
            | "KMSAccessDeniedException" => Cause::Denied,
            "ResourceNotFoundException" | "IndexNotFoundException" => Cause::Missing,
            "Burstd.Credentials"
            | "ExpiredTokenException"
            | "ExpiredToken"
            | "AuthFailure"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException" => Cause::Credentials,
            "Burstd.Request"
            | "Burstd.ConditionIgnored"
            | "ValidationException"
            | "ValidationError"
            | "SerializationException"
            | "InvalidParameterValueException"
            | "UnknownOperationException" => Cause::Wrong,
            _ => Cause::Away,
        }
    }
}

/// What a failed Invoke means for the task.
pub(super) fn invoke_outcome<E>(error: &SdkError<E, Response>, throttle: Throttle) -> Outcome
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (code, message) = code_and_message(error);
    let mut failure = Failure::new(code, message);
    failure.request_id = request_id(error);
    let not_run = |reason| move |failure| Outcome::NotRun(Refusal::new(reason, failure));
    match error {
        SdkError::ServiceError(_) => match lambda_reaction(&failure.error_type) {
            Reaction::Throttled => not_run(Reason::Throttled(throttle))(failure),
            Reaction::Unavailable => not_run(Reason::Unavailable)(failure),
            Reaction::Broken => not_run(Reason::Broken)(failure),
            Reaction::Impossible => not_run(Reason::Impossible)(failure),
            Reaction::Failed => Outcome::Failed(failure),
            Reaction::Unknown => Outcome::Unknown(failure),
        },
        SdkError::ConstructionFailure(_) => not_run(Reason::Impossible)(failure),
        SdkError::DispatchFailure(_) if was_not_sent(error) => {
            not_run(Reason::Unavailable)(failure)
        }
        _ => Outcome::Unknown(failure),
    }
}

/// What a failed read of a function's configuration means.
pub(super) fn configuration_refusal<E>(error: &SdkError<E, Response>) -> Refusal
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (code, message) = code_and_message(error);
    let reason = match (error, lambda_reaction(&code)) {
        (SdkError::ServiceError(_), Reaction::Broken | Reaction::Impossible) => Reason::Broken,
        _ => Reason::Unavailable,
    };
    Refusal::new(reason, Failure::new(code, message))
}

/// What an error code of Lambda says of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    Throttled,
    Unavailable,
    Broken,
    Impossible,
    Failed,
    Unknown,
}

/// The meaning of each error code of Invoke
/// (docs.aws.amazon.com/lambda/latest/api/API_Invoke.html, CommonErrors.html beside it, and the
/// SDK's model).
///
/// "Error codes are reserved for errors that prevent your function from executing", says that
/// page; `ServiceException` and `InternalFailure` are those that a running function cannot be
/// excluded for, and so is any code that is not listed here.
fn lambda_reaction(code: &str) -> Reaction {
    match code {
        "TooManyRequestsException"
        | "EC2ThrottledException"
        | "ServiceQuotaExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded" => Reaction::Throttled,

        "ResourceNotReadyException"
        | "ResourceConflictException"
        | "ENINotReadyException"
        | "ENILimitReachedException"
        | "EC2UnexpectedException"
        | "SubnetIPAddressLimitReachedException"
        | "EFSMountConnectivityException"
        | "EFSMountTimeoutException"
        | "EFSIOException"
        | "S3FilesMountConnectivityException"
        | "S3FilesMountTimeoutException"
        | "SnapStartNotReadyException"
        | "SnapStartTimeoutException"
        | "SnapStartRegenerationFailureException"
        | "CodeArtifactUserPendingException"
        // Credentials that have expired, or not yet arrived: the next call has newer ones. Or a
        // clock that is wrong: DynamoDB's answers tell the time.
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "AuthFailure"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ServiceUnavailableException"
        | "ServiceUnavailable" => Reaction::Unavailable,

        "ResourceNotFoundException"
        | "AccessDeniedException"
        | "NotAuthorized"
        | "OptInRequired"
        | "UnknownOperationException"
        | "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "EFSMountFailureException"
        | "S3FilesMountFailureException"
        | "EC2AccessDeniedException"
        | "InvalidRuntimeException"
        | "InvalidSecurityGroupIDException"
        | "InvalidSubnetIDException"
        | "InvalidZipFileException"
        | "CodeArtifactUserDeletedException"
        | "CodeArtifactUserFailedException"
        | "NoPublishedVersionException"
        | "ModeNotSupportedException" => Reaction::Broken,

        "InvalidRequestContentException"
        | "InvalidParameterValueException"
        | "ValidationException"
        | "ValidationError"
        | "MalformedHttpRequestException"
        | "RequestEntityTooLargeException"
        | "RequestTooLargeException"
        | "SerializedRequestEntityTooLargeException"
        | "UnsupportedMediaTypeException"
        | "RecursiveInvocationException"
        | "DurableExecutionAlreadyStartedException" => Reaction::Impossible,

        // The function's own code that runs after a snapshot is restored has failed.
        "SnapStartException" => Reaction::Failed,

        _ => Reaction::Unknown,
    }
}

/// Whether a request surely never left: no connection was made, or no credentials were found.
/// Whatever broke on a connection may have broken after the request was written.
fn was_not_sent(error: &(dyn Error + 'static)) -> bool {
    let mut on_a_connection = false;
    for cause in chain(error) {
        if cause.is::<CredentialsError>() {
            return true;
        }
        if let Some(error) = cause.downcast_ref::<TransportError>() {
            return !error.may_have_arrived;
        }
        on_a_connection |= cause.is::<std::io::Error>();
    }
    !on_a_connection
}

/// The service's code and message, or ours for what happened on the way.
fn code_and_message<E>(error: &SdkError<E, Response>) -> (String, String)
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let SdkError::ServiceError(service) = error {
        let code = service.err().code().unwrap_or("Burstd.UnknownError");
        let message = service.err().message().map_or_else(
            || {
                let status = service.raw().status().as_u16();
                let causes = chain(service.err()).skip(1);
                match causes.filter(|cause| !cause.is::<ErrorMetadata>()).last() {
                    None => format!("HTTP status {status} without a message"),
                    Some(why) => format!("HTTP status {status}, and no body to be read: {why}"),
                }
            },
            |message| without_headers(code, message).to_owned(),
        );
        return (code.to_owned(), message);
    }
    let code = match error {
        _ if chain(error).any(<dyn Error>::is::<CredentialsError>) => "Burstd.Credentials",
        SdkError::ConstructionFailure(_) => "Burstd.Request",
        SdkError::TimeoutError(_) => "Burstd.TimedOut",
        SdkError::ResponseError(_) => "Burstd.ResponseLost",
        SdkError::DispatchFailure(_) if was_not_sent(error) => "Burstd.NotConnected",
        _ => "Burstd.ConnectionLost",
    };
    let causes: Vec<_> = chain(error).map(ToString::to_string).collect();
    // Some causes are told on several lines.
    let causes = causes.iter().flat_map(|cause| cause.lines()).map(str::trim);
    let causes: Vec<_> = causes.map(without_output).collect();
    let advice = match code {
        "Burstd.Credentials" => {
            "no AWS credentials that work (set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give this \
             machine a role): "
        }
        _ => "",
    };
    (code.to_owned(), format!("{advice}{}", causes.join(": ")))
}

/// Of a signature that AWS does not accept it shows what it was made from: the request's headers,
/// with a session token among them
/// (docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html).
fn without_headers<'a>(code: &str, message: &'a str) -> &'a str {
    match code.trim_end_matches("Exception") {
        "InvalidSignature"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken" => {
            "AWS does not accept the signature: check the secret access key, and whether something \
             on the way changes requests"
        }
        _ => message.lines().next().unwrap_or_default(),
    }
}

/// What a program that gives credentials wrote when it failed may have some in it.
fn without_output(cause: &str) -> &str {
    cause.find("Stderr:").map_or(cause, |output| cause[..output].trim_end())
}

/// The error, what caused it, what caused that, ...
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn request_id<E>(error: &SdkError<E, Response>) -> Option<String> {
    let headers = error.raw_response()?.headers();
    headers.get("x-amzn-requestid").map(str::to_owned)
}

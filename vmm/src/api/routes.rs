//! The routes: one table that dispatch and the OpenAPI document are made of, and its inverse for clients.

mod input;
mod table;
#[cfg(test)]
mod tests;
mod written;

pub use input::Input;
pub use table::ROUTES;
pub use written::{Written, written};

use crate::{
    config::{DiskFault, DiskThrottle, LimitsConfig, MemoryDeviceConfig, NvdimmConfig},
    control::{
        CONSOLE_KEPT, ConsoleTail, ControlError, DaxRange, DaxRequest, DeviceList, DiskInfo, DiskList, DiskRequest,
        Event, EventList, FaultInject, FaultList, FaultNotified, FaultNotify, FaultRange, FaultReport, FaultRequest,
        GuestPower, HealthInfo, LimitsInfo, LimitsRequest, LookRequest, MAX_WAIT, MachineInfo, MapInfo, MediaErrorList,
        MediaInject, MediaRange, MemoryList, MemoryRequest, MemoryTarget, Metrics, NodeList, NvdimmInfo, NvdimmList,
        NvdimmRequest, OperationInfo, OperationList, OperationRequest, Request, StateInfo, TableInfo, TableList,
    },
};
use std::borrow::Cow;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

/// Method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Looks.
    Get,
    /// Makes, or does.
    Post,
    /// Sets.
    Put,
    /// Removes.
    Delete,
}

impl Method {
    /// As HTTP writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// A type that travels, for the OpenAPI document.
pub struct Noun {
    /// Name of its schema.
    pub name: fn() -> Cow<'static, str>,
    /// Its schema and those it refers to.
    pub collect: fn(&mut Vec<(String, RefOr<Schema>)>),
}

const fn noun<T: ToSchema>() -> Noun {
    Noun {
        name: T::name,
        collect: |all| {
            all.push((T::name().into_owned(), T::schema()));
            T::schemas(all);
        },
    }
}

/// A parameter in the path or the query.
pub struct Parameter {
    /// Name; in the path when the path has it in braces.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its values.
    pub values: Values,
}

/// Values of a parameter.
pub enum Values {
    /// Any text.
    Text,
    /// A number from 0 to this one.
    UpTo(u64),
}

/// What a route does.
pub enum Does {
    /// Asks the machine's loop.
    Ask(fn(&Input) -> Result<Request, ControlError>),
    /// Gives the OpenAPI document.
    Document,
    /// Streams events.
    Stream,
}

/// One route.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path below [`super::BASE`].
    pub path: &'static str,
    /// Name of the operation in the OpenAPI document.
    pub id: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Parameters of path and query.
    pub parameters: &'static [Parameter],
    /// What it takes.
    pub body: Option<Noun>,
    /// What it answers; none: any JSON.
    pub answer: Option<Noun>,
    /// Whether the answer is 202 and the operation that has begun.
    pub accepted: bool,
    /// What it does.
    pub does: Does,
}

/// A row without parameters or body, that is answered when it is done.
const fn route(method: Method, path: &'static str, id: &'static str, about: &'static str, does: Does) -> Route {
    Route {
        method,
        path,
        id,
        about,
        parameters: &[],
        body: None,
        answer: None,
        accepted: false,
        does,
    }
}

impl Route {
    const fn with(self, parameters: &'static [Parameter]) -> Self {
        Self { parameters, ..self }
    }

    const fn takes<T: ToSchema>(self) -> Self {
        Self {
            body: Some(noun::<T>()),
            ..self
        }
    }

    const fn answers<T: ToSchema>(self) -> Self {
        Self {
            answer: Some(noun::<T>()),
            ..self
        }
    }

    /// Answers 202 with an operation.
    const fn begins(self) -> Self {
        Self {
            accepted: true,
            ..self.answers::<OperationInfo>()
        }
    }
}

/// Path of the events as they happen, from event `since` or from now on.
pub fn stream(since: Option<u64>) -> String {
    since.map_or_else(|| "/events".to_owned(), |since| format!("/events?since={since}"))
}

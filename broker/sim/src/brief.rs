//! An exchange that goes with its last binding: bound to a queue that outlives a restart or to one that does not, and unbound.
use crate::life::Life;
use crate::names::name;
use leveret_model::exchange::ExchangeType;
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;
use leveret_node::Caller;
use leveret_node::catalog::{BindingDeclare, Destination, ExchangeDeclare};

/// What clients know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Brief {
    /// It is not there.
    #[default]
    Absent,
    /// It is there, bound to that queue.
    BoundTo(usize),
    /// A request was not answered, or a start took its binding away.
    Unknown,
}

impl Life<'_> {
    /// Makes and binds it, or unbinds it, which ends it.
    pub(crate) async fn come_or_go(&mut self) {
        let at = if self.world.random.once_in(2) { BOUND_DURABLY } else { BOUND_FOR_A_LIFE };
        let before = self.clients.with(|state| std::mem::replace(&mut state.checker.brief, Brief::Unknown));
        self.trace(format!("'{EXCHANGE}' was {before:?}"));
        let after = match before {
            Brief::Absent => self.make(at).await.map(|()| Brief::BoundTo(at)),
            Brief::BoundTo(at) => self.unbind(at).await.map(|()| Brief::Absent),
            Brief::Unknown => {
                self.broker.delete_exchange(&Caller::system(), "/", EXCHANGE, false).await.map(|_| Brief::Absent)
            }
        };
        match after {
            Ok(after) => {
                self.trace(format!("'{EXCHANGE}' is {after:?}"));
                self.clients.with(|state| state.checker.brief = after);
                self.agree_on_brief();
            }
            Err(refusal) => self.broken(format!("'{EXCHANGE}' was {before:?}: {}", refusal.text)),
        }
    }

    async fn make(&self, at: usize) -> Result<(), Refusal> {
        let (kind, arguments) = (ExchangeType::Fanout, FieldTable::default());
        let declare = ExchangeDeclare { kind, durable: true, auto_delete: true, internal: false, arguments };
        self.broker.declare_exchange(&Caller::system(), "/", EXCHANGE, declare).await?;
        let none = FieldTable::default();
        self.broker
            .bind(&Caller::system(), "/", BindingDeclare::new(EXCHANGE, &Destination::Queue(name(at)), b"", &none))
            .await
            .map(drop)
    }

    async fn unbind(&self, at: usize) -> Result<(), Refusal> {
        let none = FieldTable::default();
        self.broker
            .unbind(&Caller::system(), "/", BindingDeclare::new(EXCHANGE, &Destination::Queue(name(at)), b"", &none))
            .await
            .map(drop)
    }

    /// After a start a binding to a queue that did not outlive it is gone, and nobody knows what that made of the exchange.
    pub(crate) fn begin_brief(&self) {
        self.clients.with(|state| {
            if state.checker.brief == Brief::BoundTo(BOUND_FOR_A_LIFE) {
                state.checker.brief = Brief::Unknown;
            }
        });
        self.agree_on_brief();
    }

    /// It is there if clients were told so, and not if they were told that.
    pub(crate) fn agree_on_brief(&self) {
        let is = self.broker.catalog().exchange("/", EXCHANGE).is_ok();
        let known = self.clients.with(|state| state.checker.brief);
        let wrong = match known {
            Brief::Absent => is,
            Brief::BoundTo(_) => !is,
            Brief::Unknown => false,
        };
        if wrong {
            self.broken(format!("'{EXCHANGE}' is there: {is}; it was {known:?} for clients"));
        }
    }
}

const EXCHANGE: &str = "brief";
const BOUND_DURABLY: usize = 2;
const BOUND_FOR_A_LIFE: usize = 5;

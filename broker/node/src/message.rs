//! The door for messages whose properties the broker itself has to look at, before they are published like all others.
//!
//! A protocol learns from [`properties::check`] which messages these are ([`BrokerProperties`](properties::BrokerProperties)); a message that
//! goes through a headers exchange is one as well. All other messages do not come here.
use crate::{Broker, Caller, Route};
use leveret_model::properties::{self, Properties};
use leveret_model::refusal::Refusal;
use leveret_model::wire::SyntaxError;

/// A message that is about to be published.
#[derive(Clone, Copy)]
pub struct Message<'m> {
    /// The virtual host.
    pub vhost: &'m str,
    /// The exchange.
    pub exchange: &'m str,
    /// The routing key.
    pub routing_key: &'m [u8],
    /// The properties, encoded.
    pub properties: &'m [u8],
}

/// A message that was routed by its properties.
pub struct RoutedMessage {
    /// The route of the message.
    pub route: Route,
    /// The properties that consumers get, if they are not those of the publisher.
    pub properties: Option<Vec<u8>>,
}

/// The reason not to publish a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The properties are malformed.
    #[error(transparent)]
    Malformed(#[from] SyntaxError),
    /// The broker does not take the message.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Broker {
    /// Checks the properties of a message that have a meaning for the broker. Routes the message if its route depends on
    /// its properties: if they name further recipients (`CC`, `BCC`), or if the message goes through a headers exchange
    /// (`by_headers`). Returns `None` if the route does not depend on them: then the message goes wherever its exchange and
    /// routing key lead.
    ///
    /// # Errors
    /// [`MessageError`]: malformed properties, a user id that is not the publisher's, an expiration, and the errors of
    /// [`route`](Self::route).
    pub fn route_by_properties(
        &self,
        caller: &Caller,
        message: Message<'_>,
        by_headers: bool,
    ) -> Result<Option<RoutedMessage>, MessageError> {
        let Message { vhost, exchange, routing_key, properties } = message;
        if !properties::may_concern_broker(properties) {
            return Ok(None);
        }
        let parsed = Properties::parse(properties)?;
        check_user(&caller.identity.user, &parsed)?;
        if let Some(expiration) = &parsed.expiration {
            let text = format!("property expiration '{expiration}': a message's time to live is not supported");
            return Err(Refusal::precondition(text).into());
        }
        let names = |header| parsed.headers.as_ref().is_some_and(|headers| headers.get(header).is_some());
        if !by_headers && !names("CC") && !names("BCC") {
            return Ok(None);
        }
        let route = self.route(caller, vhost, exchange, routing_key, parsed.headers.as_ref())?;
        // BCC stands for blind copies: no recipient sees the others (RabbitMQ's sender-selected distribution).
        let properties = if names("BCC") { Some(properties::without_header(properties, b"BCC")?) } else { None };
        Ok(Some(RoutedMessage { route, properties }))
    }
}

fn check_user(user: &str, properties: &Properties) -> Result<(), Refusal> {
    match &properties.user_id {
        Some(named) if named != user => {
            let text = format!("user_id property set to '{named}' but authenticated user was '{user}'");
            Err(Refusal::precondition(text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;
    use crate::Options;
    use leveret_model::table::{FieldTable, FieldValue};

    fn encoded(properties: &Properties) -> Vec<u8> {
        let mut bytes = Vec::new();
        properties.encode(&mut bytes);
        bytes
    }

    fn keys(name: &str, key: &str) -> Option<FieldTable> {
        Some(FieldTable::from_iter([(name, FieldValue::Array(vec![key.into()]))]))
    }

    #[tokio::test]
    async fn properties_that_concern_the_broker_are_checked_and_route_the_message() {
        let broker = Broker::start(Options::default());
        let caller = Caller::api(Identity { user: "guest".into() });
        for name in ["q", "r"] {
            broker.declare_queue(&caller, "/", name, Default::default()).await.unwrap();
        }
        let look = |properties: &Properties| {
            let properties = &encoded(properties);
            let message = Message { vhost: "/", exchange: "", routing_key: b"q", properties };
            broker.route_by_properties(&caller, message, false)
        };
        let plain = Properties { message_id: Some("1".into()), user_id: Some("guest".into()), ..Default::default() };
        assert!(matches!(look(&plain), Ok(None)));
        let forged = Properties { user_id: Some("root".into()), ..Default::default() };
        let text = "user_id property set to 'root' but authenticated user was 'guest'";
        assert_eq!(look(&forged).err(), Some(MessageError::Refused(Refusal::precondition(text.into()))));
        let expiring = Properties { expiration: Some("1000".into()), ..Default::default() };
        assert!(matches!(look(&expiring), Err(MessageError::Refused(refusal)) if refusal.text.contains("'1000'")));
        let copied = look(&Properties { headers: keys("CC", "r"), ..Default::default() }).unwrap().unwrap();
        assert_eq!((copied.route.recipients(), copied.properties), (2, None));
        let blind = look(&Properties { headers: keys("BCC", "r"), priority: Some(3), ..Default::default() });
        let RoutedMessage { route, properties } = blind.unwrap().unwrap();
        let without = Properties { headers: Some(FieldTable::default()), priority: Some(3), ..Default::default() };
        assert_eq!((route.recipients(), properties), (2, Some(encoded(&without))));
        broker.stop();
    }
}

//! stand-in
use secrecy::{ExposeSecret, SecretString};
/// API key
pub struct V2Key(SecretString);
impl V2Key {
    /// parse
    /// # Errors
    /// not 32
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() == 32 { Ok(Self(text.into())) } else { Err("32 characters") }
    }
    /// bytes
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

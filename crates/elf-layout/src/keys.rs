//! What of a kernel's configuration says which keys it asks for modules, and which algorithms it has (SIG-8, SIG-18).

/// Where an algorithm of the kernel's crypto API is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In the kernel itself.
    BuiltIn,
    /// In a module, which the kernel asks modprobe for.
    Module,
    /// Not built.
    Absent,
}

/// An option of the kernel's crypto API that signatures need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// CONFIG_CRYPTO_MD4
    Md4,
    /// CONFIG_CRYPTO_MD5
    Md5,
    /// CONFIG_CRYPTO_SHA1
    Sha1,
    /// CONFIG_CRYPTO_SHA256: SHA-224 too.
    Sha256,
    /// CONFIG_CRYPTO_SHA512: SHA-384 too.
    Sha512,
    /// CONFIG_CRYPTO_SHA3
    Sha3,
    /// CONFIG_CRYPTO_SM3, before that CONFIG_CRYPTO_SM3_GENERIC.
    Sm3,
    /// CONFIG_CRYPTO_STREEBOG
    Streebog,
    /// CONFIG_CRYPTO_RSA
    Rsa,
    /// CONFIG_CRYPTO_ECDSA
    Ecdsa,
    /// CONFIG_CRYPTO_ECRDSA
    Ecrdsa,
    /// CONFIG_CRYPTO_MLDSA
    MlDsa,
}

/// Each with the ends of its options behind CONFIG_CRYPTO_, and the functions that a kernel with it built in has one of.
const ALGORITHMS: [(Crypto, &[&str], &[&str]); 12] = [
    (Crypto::Md4, &["MD4"], &["md4_mod_init"]),
    (Crypto::Md5, &["MD5"], &["md5_mod_init", "crypto_md5_mod_init"]),
    (Crypto::Sha1, &["SHA1"], &["sha1_generic_mod_init", "crypto_sha1_mod_init"]),
    (Crypto::Sha256, &["SHA256"], &["sha256_generic_mod_init", "crypto_sha256_mod_init"]),
    (Crypto::Sha512, &["SHA512"], &["sha512_generic_mod_init", "crypto_sha512_mod_init"]),
    (Crypto::Sha3, &["SHA3"], &["sha3_generic_mod_init", "crypto_sha3_mod_init"]),
    (Crypto::Sm3, &["SM3", "SM3_GENERIC"], &["sm3_generic_mod_init", "crypto_sm3_mod_init"]),
    (Crypto::Streebog, &["STREEBOG"], &["streebog_mod_init"]),
    (Crypto::Rsa, &["RSA"], &["rsa_init"]),
    (Crypto::Ecdsa, &["ECDSA"], &["ecdsa_init"]),
    (Crypto::Ecrdsa, &["ECRDSA"], &["ecrdsa_mod_init"]),
    (Crypto::MlDsa, &["MLDSA"], &["mldsa_init"]),
];

impl Crypto {
    /// The end of its option, behind CONFIG_CRYPTO_.
    pub fn option(self) -> &'static str {
        let row = ALGORITHMS.iter().find(|(crypto, ..)| *crypto == self);
        row.and_then(|(_, options, _)| options.first()).copied().unwrap_or_default()
    }
}

/// The options; `None` is what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyConfig {
    /// CONFIG_SECONDARY_TRUSTED_KEYRING
    pub secondary: Option<bool>,
    /// CONFIG_INTEGRITY_MACHINE_KEYRING
    pub machine: Option<bool>,
    /// CONFIG_INTEGRITY_PLATFORM_KEYRING
    pub platform: Option<bool>,
    /// CONFIG_SYSTEM_BLACKLIST_KEYRING
    pub blacklist: Option<bool>,
    /// CONFIG_SYSTEM_REVOCATION_LIST
    pub revocation_list: Option<bool>,
    /// CONFIG_PKCS7_WAIVE_AUTHATTRS_REJECTION_FOR_MLDSA
    pub mldsa_attributes: Option<bool>,
    /// In the order of the table.
    algorithms: [Option<Presence>; ALGORITHMS.len()],
}

impl KeyConfig {
    /// What a `.config` says; `value` gives what stands behind `CONFIG_NAME=`. An extract without CONFIG_CRYPTO, which
    /// every kernel with signed modules has, says nothing.
    pub fn of_config<'c>(value: impl Fn(&str) -> Option<&'c [u8]>) -> Self {
        if value("CONFIG_CRYPTO").is_none() {
            return KeyConfig::default();
        }
        let is_set = |name: &str| Some(value(name) == Some(b"y"));
        let mut out = KeyConfig {
            secondary: is_set("CONFIG_SECONDARY_TRUSTED_KEYRING"),
            machine: is_set("CONFIG_INTEGRITY_MACHINE_KEYRING"),
            platform: is_set("CONFIG_INTEGRITY_PLATFORM_KEYRING"),
            blacklist: is_set("CONFIG_SYSTEM_BLACKLIST_KEYRING"),
            revocation_list: is_set("CONFIG_SYSTEM_REVOCATION_LIST"),
            mldsa_attributes: is_set("CONFIG_PKCS7_WAIVE_AUTHATTRS_REJECTION_FOR_MLDSA"),
            algorithms: [None; ALGORITHMS.len()],
        };
        for (slot, (_, options, _)) in out.algorithms.iter_mut().zip(&ALGORITHMS) {
            let told = |end: &&str| value(&["CONFIG_CRYPTO_", end].concat());
            *slot = Some(match options.iter().find_map(told) {
                Some(b"y") => Presence::BuiltIn,
                Some(b"m") => Presence::Module,
                _ => Presence::Absent,
            });
        }
        out
    }

    /// What the functions of a kernel's image show, where no `.config` tells; `has` says whether there is one of a name.
    /// An algorithm that is not built in may be a module.
    pub fn of_symbols(&mut self, has: impl Fn(&str) -> bool) {
        let keyrings = [
            (&mut self.secondary, "restrict_link_by_builtin_and_secondary_trusted"),
            (&mut self.machine, "set_machine_trusted_keys"),
            (&mut self.platform, "set_platform_trusted_keys"),
            (&mut self.blacklist, "is_hash_blacklisted"),
            (&mut self.revocation_list, "is_key_on_revocation_list"),
        ];
        for (slot, function) in keyrings {
            slot.get_or_insert_with(|| has(function));
        }
        for (slot, (_, _, functions)) in self.algorithms.iter_mut().zip(&ALGORITHMS) {
            if slot.is_none() && functions.iter().any(|function| has(function)) {
                *slot = Some(Presence::BuiltIn);
            }
        }
    }

    /// Where an algorithm is; `None` if it is not known.
    pub fn presence(&self, of: Crypto) -> Option<Presence> {
        let rows = ALGORITHMS.iter().zip(&self.algorithms);
        rows.filter(|((crypto, ..), _)| *crypto == of).find_map(|(_, presence)| *presence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &'static str) -> KeyConfig {
        KeyConfig::of_config(|name| {
            let mut lines = text.lines().chain(["CONFIG_CRYPTO=y"]);
            lines.find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).map(str::as_bytes)
        })
    }

    #[test]
    fn sig_8_and_18_options_of_a_configuration() {
        assert_eq!(KeyConfig::of_config(|_| None), KeyConfig::default(), "SIG-18: an extract");
        let none = of("");
        assert_eq!((none.secondary, none.presence(Crypto::Rsa)), (Some(false), Some(Presence::Absent)));
        type Get = fn(&KeyConfig) -> Option<bool>;
        let options: [(&str, Get); 6] = [
            ("CONFIG_SECONDARY_TRUSTED_KEYRING=y", |c| c.secondary),
            ("CONFIG_INTEGRITY_MACHINE_KEYRING=y", |c| c.machine),
            ("CONFIG_INTEGRITY_PLATFORM_KEYRING=y", |c| c.platform),
            ("CONFIG_SYSTEM_BLACKLIST_KEYRING=y", |c| c.blacklist),
            ("CONFIG_SYSTEM_REVOCATION_LIST=y", |c| c.revocation_list),
            ("CONFIG_PKCS7_WAIVE_AUTHATTRS_REJECTION_FOR_MLDSA=y", |c| c.mldsa_attributes),
        ];
        for (text, get) in options {
            assert_eq!((get(&of(text)), get(&none)), (Some(true), Some(false)), "SIG-8: {text}");
        }
        for (crypto, text) in [
            (Crypto::Sha512, "CONFIG_CRYPTO_SHA512=m"),
            (Crypto::Sm3, "CONFIG_CRYPTO_SM3_GENERIC=m"),
            (Crypto::Sm3, "CONFIG_CRYPTO_SM3=m"),
        ] {
            assert_eq!(of(text).presence(crypto), Some(Presence::Module), "SIG-18: {text}");
            assert_eq!(of(text).presence(Crypto::Rsa), Some(Presence::Absent), "SIG-18: {text}");
        }
        assert_eq!(of("CONFIG_CRYPTO_RSA=y").presence(Crypto::Rsa), Some(Presence::BuiltIn), "SIG-18");
    }

    #[test]
    fn sig_8_and_18_what_functions_show() {
        let mut some = KeyConfig::default();
        some.of_symbols(|name| ["set_machine_trusted_keys", "crypto_sha512_mod_init"].contains(&name));
        assert_eq!((some.machine, some.platform), (Some(true), Some(false)), "SIG-8");
        assert_eq!(some.presence(Crypto::Sha512), Some(Presence::BuiltIn), "SIG-18");
        assert_eq!(some.presence(Crypto::Sha1), None, "SIG-18: a module, or nothing");
        let mut known = of("CONFIG_CRYPTO_SHA1=m");
        known.of_symbols(|_| true);
        assert_eq!(known.presence(Crypto::Sha1), Some(Presence::Module), "SIG-18: a configuration says more");
        assert_eq!(known.machine, Some(false), "SIG-8: a configuration says more");
    }
}

//! The native part of the Python package `kmodld`: numbers, texts and bytes. The classes that Python sees are made of them in
//! `kmodld/`, where they are documented and typed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kmodld::check::run::{Event, Target, run};
use kmodld::check::set::Search;
use kmodld::check::{Unreadable, Verdict};
use kmodld::elf_layout::{Errno, Findings, Region};
use kmodld::elf_output::Options;
use kmodld::kernel_source::{needs, read, spec_file};
use kmodld::linked::{Cause, SymbolKind};
use kmodld::load::Args;
use kmodld::symres::LoadFlags;
use kmodld::verify::Wanted;
use kmodld::verify::report::VerifyDocument;
use kmodld::{Error, Failure, LinkedModule, Loading, Placement, Stage, document};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Whatever a call of the library fails with, as the exception of `kmodld._errors` that it is.
struct Failed(Failure);

impl<E: Into<Failure>> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed(error.into())
    }
}

impl From<Failed> for PyErr {
    fn from(Failed(failure): Failed) -> PyErr {
        let text = failure.to_string();
        let findings = failure.findings().map(json).unwrap_or_else(|| String::from("[]"));
        let (class, errno, symbols) = match &failure {
            Failure::Refused { errno, .. } => ("Refused", errno.map(Errno::number), Vec::new()),
            Failure::Undecided { .. } => ("Undecided", None, Vec::new()),
            Failure::Incomplete { symbols, .. } => ("Incomplete", None, symbols.clone()),
            _ => ("Error", None, Vec::new()),
        };
        let open: Vec<(String, String)> = failure.findings().map(open_rules).unwrap_or_default();
        Python::attach(|py| {
            let made = py
                .import("kmodld._errors")
                .and_then(|module| module.getattr("make"))
                .and_then(|make| make.call1((class, text, errno, findings, symbols, open)));
            match made {
                Ok(exception) => PyErr::from_value(exception),
                Err(error) => error,
            }
        })
    }
}

fn open_rules(said: &Findings) -> Vec<(String, String)> {
    document::unjudged(said).into_iter().map(|rule| (rule.code.to_owned(), rule.needs)).collect()
}

/// Findings as JSON.
fn json(said: &Findings) -> String {
    serde_json::to_string(&document::findings(said)).unwrap_or_else(|_| String::from("[]"))
}

fn region(name: &str) -> PyResult<Region> {
    Region::from_name(name).ok_or_else(|| PyKeyError::new_err(format!("no region is called {name}")))
}

fn stage(name: &str) -> PyResult<Stage> {
    let all = [Stage::Relocated, Stage::Kallsyms, Stage::Final];
    let known = || PyValueError::new_err(format!("stage {name}: relocated, kallsyms or final"));
    all.into_iter().find(|stage| stage.name() == name).ok_or_else(known)
}

/// A kernel with the modules loaded so far.
#[pyclass(frozen, module = "kmodld._native")]
struct Kernel {
    kernel: Mutex<kmodld::Kernel>,
}

impl Kernel {
    fn lock(&self) -> MutexGuard<'_, kmodld::Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now: what is asked of a copy keeps nobody else from asking.
    fn now(&self) -> kmodld::Kernel {
        self.lock().clone()
    }
}

/// What one module is loaded with: the address of the first region, or of each; parameters; how far.
type How = (Option<u64>, Vec<(String, u64)>, Option<u64>, String, String, bool, bool);

#[pymethods]
impl Kernel {
    #[new]
    #[pyo3(signature = (image, spec, symtab, symvers, config, release, cmdline, modules, accept_undecided))]
    #[allow(clippy::too_many_arguments, reason = "the Python side gives names to them")]
    fn new(
        py: Python<'_>,
        image: Option<PathBuf>,
        spec: Option<Vec<u8>>,
        symtab: Option<PathBuf>,
        symvers: Option<PathBuf>,
        config: Option<PathBuf>,
        release: Option<String>,
        cmdline: String,
        modules: Vec<PathBuf>,
        accept_undecided: bool,
    ) -> PyResult<Self> {
        let kernel = py.detach(move || -> Result<kmodld::Kernel, Failed> {
            let mut builder = kmodld::Kernel::builder().cmdline(cmdline);
            if let Some(image) = image {
                builder = builder.image(image)?;
            }
            if let Some(spec) = spec {
                builder = builder.image_bytes("spec", &spec)?;
            }
            if let Some(symtab) = symtab {
                builder = builder.symtab(symtab)?;
            }
            if let Some(symvers) = symvers {
                builder = builder.symvers(symvers)?;
            }
            if let Some(config) = config {
                builder = builder.config(config)?;
            }
            if let Some(release) = release {
                builder = builder.release(release);
            }
            if accept_undecided {
                builder = builder.accept_undecided();
            }
            for module in modules {
                builder = builder.with_module(module)?;
            }
            Ok(builder.build()?)
        })?;
        Ok(Kernel { kernel: Mutex::new(kernel) })
    }

    #[getter]
    fn release(&self) -> String {
        self.lock().release().to_owned()
    }

    #[getter]
    fn arch(&self) -> Option<&'static str> {
        self.lock().arch()
    }

    #[getter]
    fn coverage(&self) -> &'static str {
        self.lock().coverage().word()
    }

    #[getter]
    fn modules(&self) -> Vec<String> {
        self.lock().modules().map(|module| document::text(&module.name)).collect()
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        self.lock().symbol(name)
    }

    fn load(&self, py: Python<'_>, file: Vec<u8>, how: How) -> PyResult<Module> {
        let (base, regions, percpu, params, stage_name, choices, accept_undecided) = how;
        let kernel = self.now();
        let mut loading: Loading = kernel.load(file).params(params).stage(stage(&stage_name)?);
        loading = match base {
            Some(base) => loading.at(Placement::Base(base)),
            None if regions.is_empty() => loading,
            None => {
                let place = |(name, at): &(String, u64)| Ok((region(name)?, *at));
                loading.at(Placement::Regions(regions.iter().map(place).collect::<PyResult<_>>()?))
            }
        };
        if let Some(percpu) = percpu {
            loading = loading.percpu(percpu);
        }
        if choices {
            loading = loading.choices();
        }
        if accept_undecided {
            loading = loading.accept_undecided();
        }
        let module = py.detach(move || loading.run()).map_err(Failed::from)?;
        Ok(Module { module: Arc::new(module) })
    }

    fn check(&self, py: Python<'_>, name: &str, file: Vec<u8>) -> PyResult<String> {
        let kernel = self.now();
        let verdict = py.detach(|| kernel.check(name, &file)).map_err(Failed::from)?;
        Ok(line(&Ok(verdict)))
    }

    fn insmod(&self, py: Python<'_>, file: Vec<u8>, params: &str) -> PyResult<String> {
        let said = py.detach(|| self.lock().insmod(&file, params)).map_err(Failed::from)?;
        Ok(json(&said))
    }

    fn rmmod(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        let said = py.detach(|| self.lock().rmmod(name)).map_err(Failed::from)?;
        Ok(json(&said))
    }

    fn load_needed(&self, py: Python<'_>, path: PathBuf) -> PyResult<Vec<PathBuf>> {
        Ok(py.detach(|| self.lock().load_needed(path)).map_err(Failed::from)?)
    }

    /// What `verify --json` prints.
    fn verify(
        &self,
        py: Python<'_>,
        dump: PathBuf,
        only: Vec<String>,
        with_files: Vec<PathBuf>,
    ) -> PyResult<String> {
        let kernel = self.now();
        let wanted = Wanted { only, with: with_files };
        let report = py.detach(move || kernel.verify(dump, &wanted)).map_err(Failed::from)?;
        serde_json::to_string(&VerifyDocument::from(&report)).map_err(|e| PyValueError::new_err(e.to_string()))
    }

    /// The verdicts on a part of a set of files, each as JSON: modules load after those of the set that they need.
    fn check_set(
        &self,
        py: Python<'_>,
        paths: Vec<PathBuf>,
        start: usize,
        end: usize,
        threads: usize,
    ) -> PyResult<Vec<String>> {
        let kernel = self.now();
        let lines = py.detach(move || -> Result<Vec<String>, Failed> {
            let mut lines = Vec::new();
            let set = Search::new(&paths).into_set(|error| lines.push(line(&Err(error))));
            let target = Target {
                label: None,
                loader: kernel.loader().clone(),
                args: Args::verdict(LoadFlags::default(), b""),
                options: Default::default(),
            };
            let part = start.min(set.len())..end.min(set.len());
            run(&set, &[target], part, threads, &mut |event| {
                match event {
                    Event::Checked(Ok(verdicts)) => lines.extend(verdicts.into_iter().map(|v| line(&Ok(v)))),
                    Event::Checked(Err(error)) => lines.push(line(&Err(error))),
                    Event::Progress(..) => {}
                }
                Ok(())
            })?;
            Ok(lines)
        })?;
        Ok(lines)
    }
}

/// A verdict, or why a file cannot be read, as JSON.
fn line(result: &Result<Verdict, Error>) -> String {
    let text = match result {
        Ok(verdict) => serde_json::to_string(verdict),
        Err(error) => serde_json::to_string(&Unreadable::of(error)),
    };
    text.unwrap_or_default()
}

/// A module in memory.
#[pyclass(frozen, module = "kmodld._native")]
struct Module {
    module: Arc<LinkedModule>,
}

/// Name, address, size, what it is, is it global, is it undefined.
type SymbolTuple = (String, Option<u64>, u64, String, bool, bool);
/// Name, address, owner, CRC, is it GPL-only, namespace.
type ImportTuple = (String, Option<u64>, String, Option<u32>, bool, String);

fn kind(kind: SymbolKind) -> String {
    match kind {
        SymbolKind::Function => String::from("function"),
        SymbolKind::Object => String::from("object"),
        SymbolKind::Section => String::from("section"),
        SymbolKind::Other(number) => format!("{number}"),
        _ => String::from("?"),
    }
}

#[pymethods]
impl Module {
    #[getter]
    fn name(&self) -> String {
        self.module.name().into_owned()
    }

    #[getter]
    fn release(&self) -> &str {
        self.module.release()
    }

    #[getter]
    fn arch(&self) -> &'static str {
        self.module.arch()
    }

    #[getter]
    fn stage(&self) -> &'static str {
        self.module.stage().name()
    }

    #[getter]
    fn init(&self) -> Option<u64> {
        self.module.init()
    }

    #[getter]
    fn exit(&self) -> Option<u64> {
        self.module.exit()
    }

    #[getter]
    fn depends(&self) -> Vec<String> {
        self.module.depends().map(|name| name.into_owned()).collect()
    }

    #[getter]
    fn findings(&self) -> String {
        json(self.module.findings())
    }

    #[getter]
    fn unjudged(&self) -> Vec<(String, String)> {
        open_rules(self.module.findings())
    }

    /// Name, base, size, is it writable, is it executable.
    #[getter]
    fn regions(&self) -> Vec<(&'static str, u64, usize, bool, bool)> {
        let regions = self.module.regions();
        let tuple = |r: kmodld::linked::MemoryRegion<'_>| {
            (r.region.name(), r.base, r.bytes.len(), r.permissions.write, r.permissions.execute)
        };
        regions.map(tuple).collect()
    }

    fn region_bytes<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyBytes>> {
        let found = self.module.region(region(name)?);
        let found = found.ok_or_else(|| PyKeyError::new_err(format!("the module has no region {name}")))?;
        Ok(PyBytes::new(py, found.bytes))
    }

    /// Index, name, region, address, size.
    #[getter]
    fn sections(&self) -> Vec<(usize, String, Option<&'static str>, Option<u64>, usize)> {
        let tuple = |s: kmodld::linked::Section<'_>| {
            (s.index, s.name.clone().into_owned(), s.region.map(Region::name), s.address, s.bytes().len())
        };
        self.module.sections().map(tuple).collect()
    }

    fn section_bytes<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyBytes>> {
        let section = self.module.section(name);
        let section = section.ok_or_else(|| PyKeyError::new_err(format!("no section is called {name}")))?;
        Ok(PyBytes::new(py, section.bytes()))
    }

    fn read<'py>(&self, py: Python<'py>, address: u64, len: u64) -> Option<Bound<'py, PyBytes>> {
        Some(PyBytes::new(py, self.module.read(address, len)?))
    }

    fn symbol(&self, name: &str) -> Option<SymbolTuple> {
        self.module.symbol(name).map(symbol)
    }

    #[getter]
    fn symbols(&self) -> Vec<SymbolTuple> {
        self.module.symbols().map(symbol).collect()
    }

    #[getter]
    fn imports(&self) -> Vec<ImportTuple> {
        let all = self.module.imports();
        all.map(|i| (i.name.into(), i.address, i.owner.into(), i.crc, i.gpl_only, i.namespace.into()))
            .collect()
    }

    #[getter]
    fn exports(&self) -> Vec<ImportTuple> {
        let (all, me) = (self.module.exports(), self.name());
        all.map(|e| (e.name.into(), e.address, me.clone(), e.crc, e.gpl_only, e.namespace.into())).collect()
    }

    /// Address, size, type, symbol, addend.
    fn relocations(&self, py: Python<'_>) -> Vec<(u64, u64, String, String, i64)> {
        py.detach(|| {
            let all = self.module.relocations().into_iter();
            all.map(|r| (r.address, r.size, r.kind.into_owned(), r.symbol.into_owned(), r.addend)).collect()
        })
    }

    /// Address, size, step, detail, place.
    fn patches(&self, py: Python<'_>) -> Vec<(u64, u64, &'static str, Option<String>, Option<String>)> {
        py.detach(|| {
            let all = self.module.patches().into_iter();
            all.map(|p| (p.address, p.size, p.step.name(), p.detail, p.symbol)).collect()
        })
    }

    /// Address, expected, found, kind of cause, cause in words, is it sound, place.
    #[allow(clippy::type_complexity, reason = "the Python side gives names to them")]
    fn compare<'py>(
        &self,
        py: Python<'py>,
        address: u64,
        bytes: Vec<u8>,
    ) -> PyResult<
        Vec<(u64, Bound<'py, PyBytes>, Bound<'py, PyBytes>, &'static str, String, bool, Option<String>)>,
    > {
        let differences = py.detach(|| self.module.compare_at(address, &bytes)).map_err(Failed::from)?;
        let tuple = |d: kmodld::linked::Difference| {
            let (kind, words) = match &d.cause {
                Cause::Runtime(what) => ("runtime", what.clone()),
                Cause::Choice(step) => ("choice", step.name().to_owned()),
                Cause::Patch { step, detail: Some(detail) } => {
                    ("patch", format!("{}: {detail}", step.name()))
                }
                Cause::Patch { step, detail: None } => ("patch", step.name().to_owned()),
                Cause::Relocation(what) => ("relocation", what.clone()),
                _ => ("unexplained", String::new()),
            };
            let bytes = |bytes: &[u8]| PyBytes::new(py, bytes);
            (d.address, bytes(&d.expected), bytes(&d.found), kind, words, d.cause.is_sound(), d.symbol)
        };
        Ok(differences.into_iter().map(tuple).collect())
    }

    fn elf<'py>(&self, py: Python<'py>, debug: bool) -> PyResult<Bound<'py, PyBytes>> {
        let all = Options::default();
        let options = if debug { all } else { all.without_debug() };
        let mut elf = Vec::new();
        py.detach(|| self.module.write_elf_with(&mut elf, &options))?;
        Ok(PyBytes::new(py, &elf))
    }

    /// The document of `layout.json`.
    fn document(&self, py: Python<'_>) -> String {
        py.detach(|| serde_json::to_string(&self.module.document()).unwrap_or_default())
    }
}

fn symbol(s: kmodld::linked::Symbol<'_>) -> SymbolTuple {
    (s.name.into_owned(), s.address, s.size, kind(s.kind), s.is_global, s.is_undefined)
}

/// A kernel image or tree as one compact SPEC.
#[pyfunction]
fn spec<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = py.detach(move || -> Result<Vec<u8>, Failed> {
        let records = read(&path)?.to_records(&needs());
        let mut bytes = Vec::new();
        spec_file::write(&records, &mut bytes).map_err(|why| Error::read(&path, why))?;
        Ok(bytes)
    })?;
    Ok(PyBytes::new(py, &bytes))
}

/// The module files of these files and folders, and what keeps the rest from being read, as JSON.
#[pyfunction]
fn files(py: Python<'_>, paths: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<String>) {
    py.detach(move || {
        let mut errors = Vec::new();
        let set = Search::new(&paths).into_set(|error| errors.push(line(&Err(error))));
        ((0..set.len()).map(|index| set.file(index).to_owned()).collect(), errors)
    })
}

/// The native part of kmodld.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Kernel>()?;
    module.add_class::<Module>()?;
    module.add_function(wrap_pyfunction!(spec, module)?)?;
    module.add_function(wrap_pyfunction!(files, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}

//! `receive` and `send`, as objects that Python takes for coroutine functions.
//!
//! Owns       their type: called without a tuple of arguments, and marked, because asgiref's `async_to_sync`, and with it
//!            each synchronous consumer of Channels, warns of a callable that is not.
//! Never      knows what they do.

use std::mem::offset_of;
use std::ptr;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::callable::answer;

/// What one of them does: called with the object that it belongs to and its arguments.
pub type Body = fn(Python<'_>, *mut ffi::PyObject, &[*mut ffi::PyObject]) -> PyResult<*mut ffi::PyObject>;

/// An instance, as Python sees it.
#[repr(C)]
struct Callable {
    head: ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    weak_references: *mut ffi::PyObject,
    /// Whose it is; a reference of its own.
    owner: *mut ffi::PyObject,
    body: Body,
}

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// A callable that belongs to `owner`.
pub fn callable<T>(py: Python<'_>, owner: &Py<T>, body: Body) -> PyResult<Py<PyAny>> {
    let class = TYPE.get_or_try_init(py, || make_type(py))?;
    // SAFETY: the type was made for instances of this size, and the allocator fills in their heads; every other
    // field is written before anybody sees the object.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class.as_ptr().cast(), 0);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let callable = object.cast::<Callable>();
        (*callable).vectorcall = vectorcall;
        (*callable).weak_references = ptr::null_mut();
        (*callable).owner = owner.clone_ref(py).into_ptr();
        (*callable).body = body;
        Ok(Bound::from_owned_ptr(py, object).unbind())
    }
}

/// No argument.
pub fn none(arguments: &[*mut ffi::PyObject]) -> PyResult<()> {
    if arguments.is_empty() { Ok(()) } else { Err(PyTypeError::new_err("receive() takes no argument")) }
}

/// One argument.
#[inline]
pub fn one(arguments: &[*mut ffi::PyObject]) -> PyResult<*mut ffi::PyObject> {
    if let [argument] = arguments {
        return Ok(*argument);
    }
    Err(PyTypeError::new_err("send() takes one argument, the message"))
}

fn make_type(py: Python<'_>) -> PyResult<Py<PyType>> {
    let member = |name: &'static std::ffi::CStr, type_code, offset: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    };
    // Read while the type is made, and not after.
    let mut members = [
        member(c"__vectorcalloffset__", ffi::Py_T_PYSSIZET, offset_of!(Callable, vectorcall)),
        member(c"__weaklistoffset__", ffi::Py_T_PYSSIZET, offset_of!(Callable, weak_references)),
        member(c"__self__", ffi::Py_T_OBJECT_EX, offset_of!(Callable, owner)),
        // SAFETY: all zeros is how the list ends.
        unsafe { std::mem::zeroed() },
    ];
    let mut slots = [
        ffi::PyType_Slot { slot: ffi::Py_tp_call, pfunc: ffi::PyVectorcall_Call as *mut _ },
        ffi::PyType_Slot { slot: ffi::Py_tp_dealloc, pfunc: dealloc as *mut _ },
        ffi::PyType_Slot { slot: ffi::Py_tp_members, pfunc: members.as_mut_ptr().cast() },
        ffi::PyType_Slot { slot: 0, pfunc: ptr::null_mut() },
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_VECTORCALL;
    let mut spec = ffi::PyType_Spec {
        name: c"bicorn._core.AsgiCallable".as_ptr(),
        basicsize: size_of::<Callable>() as i32,
        itemsize: 0,
        flags: flags as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the specification and all that it points to are alive; gives a new type or sets an error.
    let class = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))? };
    let class = class.cast_into::<PyType>()?;
    // The mark of asyncio, up to Python 3.13, and that of inspect, from 3.12. On the class both hold for what it makes.
    if let Some(mark) = py.import("asyncio.coroutines")?.getattr_opt("_is_coroutine")? {
        class.setattr("_is_coroutine", mark)?;
    }
    if let Some(mark) = py.import("inspect")?.getattr_opt("markcoroutinefunction")? {
        mark.call1((&class,))?;
    }
    Ok(class.unbind())
}

unsafe extern "C" fn vectorcall(
    callable: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    counted: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: Python calls this with the interpreter lock held.
    let py = unsafe { Python::assume_attached() };
    answer(py, || {
        if !names.is_null() {
            return Err(PyTypeError::new_err("receive() and send() take no keyword arguments"));
        }
        // SAFETY: Python calls this with an instance of the type, and with as many arguments as it says.
        let (owner, body, arguments) = unsafe {
            let callable = callable.cast::<Callable>();
            let count = ffi::PyVectorcall_NARGS(counted) as usize;
            let arguments = if count == 0 { &[] } else { std::slice::from_raw_parts(arguments, count) };
            ((*callable).owner, (*callable).body, arguments)
        };
        body(py, owner, arguments)
    })
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: Python calls this once, with an instance whose last reference has gone. Instances of a type that was
    // made at run time hold a reference to it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let callable = object.cast::<Callable>();
        if !(*callable).weak_references.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        ffi::Py_DECREF((*callable).owner);
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}

"""Where cuDNN is looked for, what is said of it, and its declarations against its own headers."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path

import pytest

import cnnkit_cupy
from cnnkit import BackendError
from cnnkit_cupy import cudnn_library
from cnnkit_cupy.cudnn_library import IN_WHEEL, SIGNATURES, Performance, Search, load

NO_COMPILER = "no C++ compiler: apt-get install g++"


@pytest.fixture(scope="session")
def compile_cpp(lacking, tmp_path_factory):
    """A function that compiles a C++ source and returns the file that it becomes."""
    compiler = shutil.which("g++")

    def build(source, *options):
        if compiler is None:
            lacking(NO_COMPILER)
        folder = tmp_path_factory.mktemp("cpp")
        (folder / "source.cpp").write_text(source)
        made = folder / "made"
        subprocess.run([compiler, "-std=c++17", *options, folder / "source.cpp", "-o", made], check=True)
        return made

    return build


@pytest.fixture(scope="session")
def stand_in(compile_cpp):
    """A function that makes a library with cuDNN's functions, which do nothing, for a version of CUDA; `without` lacks one."""
    made = {}

    def build(cuda, without=""):
        if (cuda, without) not in made:
            lines = [f"int {name}() {{ return 0; }}" for name in SIGNATURES if name != without]
            lines += ["unsigned long cudnnGetVersion() { return 91203; }"]
            lines += [f"unsigned long cudnnGetCudartVersion() {{ return {cuda}; }}"]
            lines += ["const char *cudnnGetErrorString(int) { return 0; }", "void cudnnGetLastErrorString() {}"]
            source = 'extern "C" {\n' + "\n".join(lines) + "\n}"
            made[cuda, without] = compile_cpp(source, "-shared", "-fPIC", "-Wl,-soname,libcudnn.so.9")
        return made[cuda, without]

    return build


@pytest.fixture
def searched(tmp_path):
    """A function that runs `load` in a fresh interpreter which has these folders first on its path; it returns its words."""

    def run(*folders, ask="load(13)", before="", **variables):
        code = (
            f"from cnnkit_cupy import cudnn_library\nfrom cnnkit_cupy.cudnn_library import load\n{before}\nprint({ask})"
        )
        path = [*map(str, folders), str(Path(cnnkit_cupy.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-c", code]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "LD_LIBRARY_PATH": ""} | variables
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def wheel(tmp_path):
    """A function that puts a file where a wheel of cuDNN has its library; it returns the folder for the path and the file."""

    def put(library):
        place = tmp_path / "wheel" / IN_WHEEL
        place.parent.mkdir(parents=True)
        shutil.copy(library, place)
        return tmp_path / "wheel", place

    return put


NO_WHEEL = 'cudnn_library.IN_WHEEL = "no/such/place"\n'
NO_SYSTEM = 'cudnn_library.FILE = "libcudnn-of-no-computer.so.9"\n'
NO_PATHFINDER = 'import sys; sys.modules["cuda.pathfinder"] = None\n'


def test_importing_our_modules_loads_neither_cudnn_nor_an_engine(searched):
    loaded = "sorted({name.partition('.')[0] for name in sys.modules} & {'cuda', 'cupy', 'tensorflow', 'torch'})"
    answer = searched(
        before="import sys, cnnkit_cupy.cudnn", ask=f"({loaded}, 'cudnn.so' in open('/proc/self/maps').read())"
    )
    assert answer == "([], False)"


def test_a_wheel_s_library_is_found_with_its_place_and_versions(searched, stand_in, wheel):
    folder, place = wheel(stand_in(13050))
    assert searched(folder) == f"cuDNN 9.12.3 for CUDA 13 ({place})"
    assert searched(folder, ask="load()") == f"cuDNN 9.12.3 for CUDA 13 ({place})"  # whatever CuPy is built for


def test_a_library_for_another_cuda_than_cupy_s_is_refused(searched, stand_in, wheel):
    folder, place = wheel(stand_in(12090))
    assert searched(folder) == (
        f"no cuDNN: cuDNN 9.12.3 for CUDA 12 ({place}) was found, but CuPy is built for CUDA 13. Put the other in its place: "
        "python -m pip uninstall nvidia-cudnn-cu12, then python -m pip install nvidia-cudnn-cu13."
    )
    assert searched(folder, ask="load(12)") == f"cuDNN 9.12.3 for CUDA 12 ({place})"


def test_a_wheel_s_library_that_does_not_load_is_not_passed_over(searched, tmp_path, wheel):
    (tmp_path / "text").write_text("this is no library")
    folder, place = wheel(tmp_path / "text")
    answer = searched(folder)
    assert answer.startswith(f"no cuDNN: cuDNN does not load: {place}: ")
    assert answer.endswith(". Install it again: python -m pip install nvidia-cudnn-cu13 --force-reinstall.")


def test_a_library_that_lacks_a_function_is_refused(searched, stand_in, wheel):
    folder, place = wheel(stand_in(13050, without="cudnnConvolutionBackwardFilter"))
    answer = searched(folder)
    assert answer.startswith(f"no cuDNN: {place} is not the cuDNN 9 that is needed: ")
    assert "undefined symbol: cudnnConvolutionBackwardFilter. Install another: python -m pip install" in answer


def test_without_any_the_reason_is_the_loader_s_and_the_fix_a_command(searched):
    answer = searched(before=NO_WHEEL + NO_PATHFINDER + NO_SYSTEM)
    assert answer == (
        "no cuDNN: cuDNN is not installed (libcudnn-of-no-computer.so.9: cannot open shared object file: No such file or "
        "directory). Install it with: python -m pip install nvidia-cudnn-cu13."
    )


def test_what_cuda_pathfinder_finds_is_taken_where_there_is_no_wheel(searched, stand_in, tmp_path, wheel):
    library = stand_in(13050)
    package = tmp_path / "finder" / "cuda" / "pathfinder"
    package.mkdir(parents=True)
    found = f"from types import SimpleNamespace\nload_nvidia_dynamic_lib = {{'cudnn': SimpleNamespace(abs_path={str(library)!r})}}.get"
    (package / "__init__.py").write_text(found)
    assert searched(tmp_path / "finder", before=NO_WHEEL) == f"cuDNN 9.12.3 for CUDA 13 ({library})"
    folder, place = wheel(library)
    assert str(place) in searched(tmp_path / "finder", folder)  # a wheel comes first


def test_nothing_found_by_cuda_pathfinder_leaves_it_to_the_system_s_loader(searched, tmp_path):
    package = tmp_path / "finder" / "cuda" / "pathfinder"
    package.mkdir(parents=True)
    lines = [
        "class DynamicLibNotFoundError(RuntimeError): pass",
        "def load_nvidia_dynamic_lib(_): raise DynamicLibNotFoundError",
    ]
    (package / "__init__.py").write_text("\n".join(lines))
    answer = searched(tmp_path / "finder", before=NO_WHEEL + NO_SYSTEM)
    assert answer.startswith("no cuDNN: cuDNN is not installed (libcudnn-of-no-computer.so.9: ")


def test_the_system_s_loader_comes_last_and_its_file_is_named(searched, stand_in, tmp_path):
    place = tmp_path / "libcudnn.so.9.12.3"
    shutil.copy(stand_in(13050), place)
    (tmp_path / "libcudnn.so.9").symlink_to(place)
    answer = searched(before=NO_WHEEL + NO_PATHFINDER, LD_LIBRARY_PATH=str(tmp_path))
    assert answer == f"cuDNN 9.12.3 for CUDA 13 ({place})"


def test_what_the_process_has_loaded_comes_first(searched, stand_in, tmp_path, wheel):
    place = tmp_path / "libcudnn.so.9.12.3"
    shutil.copy(stand_in(13050), place)
    folder, _ = wheel(stand_in(12090))
    assert (
        searched(folder, before=f"import ctypes; ctypes.CDLL({str(place)!r})") == f"cuDNN 9.12.3 for CUDA 13 ({place})"
    )


def test_other_systems_than_linux_are_told_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert str(load(13)) == "no cuDNN: cuDNN is looked for on Linux only, and this is win32. Leave cuDNN out."


def test_a_search_that_found_nothing_raises_its_reason_and_fix():
    with pytest.raises(BackendError, match=r"^backend 'cupy' was asked for cuDNN, but it is Sunday\. Wait\.$"):
        Search(None, "it is Sunday", "Wait").require()


# ------------------------------------------------------------------------------------------------------- declarations

SHIMS = {
    "cuda_runtime_api.h": """#include <stddef.h>
        typedef struct CUstream_st *cudaStream_t;
        typedef struct CUgraph_st *cudaGraph_t;""",
    "library_types.h": "typedef enum { MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL } libraryPropertyType;",
}
"""All that cuDNN's headers take from CUDA's, which the wheel of CUDA's runtime does not bring whole."""

PROGRAM = """
#include <cudnn_cnn.h>
#include <cstddef>
#include <cstdio>
#include <type_traits>

template <class T> char letter() {
    if (std::is_void<T>::value) return 'v';
    if (std::is_pointer<T>::value) return 'p';
    if (std::is_same<T, size_t>::value) return 'z';
    return (std::is_enum<T>::value || std::is_same<T, int>::value) && sizeof(void *) == 8 ? 'i' : '?';
}
template <class F> struct Function;
template <class R, class... A> struct Function<R(A...)> {
    static void show(const char *name) {
        const char letters[] = {letter<R>(), letter<A>()..., 0};
        std::printf("%s %s\\n", name, letters);
    }
};
template <class P> void show(const char *name) {
    const size_t numbers[] = {sizeof(P), offsetof(P, algo), offsetof(P, status), offsetof(P, time), offsetof(P, memory),
                              offsetof(P, determinism), offsetof(P, mathType), offsetof(P, reserved),
                              sizeof(P::algo), sizeof(cudnnStatus_t), sizeof(cudnnMathType_t)};
    std::printf("%s", name);
    for (size_t number : numbers) std::printf(" %zu", number);
    std::printf("\\n");
}
int main() {
    show<cudnnConvolutionFwdAlgoPerf_t>("Forward");
    show<cudnnConvolutionBwdDataAlgoPerf_t>("BackwardData");
    show<cudnnConvolutionBwdFilterAlgoPerf_t>("BackwardFilter");
    LINES
}
"""


@pytest.fixture(scope="module")
def from_headers(lacking, compile_cpp, tmp_path_factory):
    """What a C++ program says of names in cuDNN's headers: a function's types, the structures' layout, an enum's value."""
    spec = importlib.util.find_spec("nvidia")
    places = [Path(folder) / "cudnn" / "include" for folder in (spec.submodule_search_locations if spec else [])]
    place = next((place for place in [*places, Path("/usr/include")] if (place / "cudnn_cnn.h").exists()), None)
    if place is None:
        lacking("no headers of cuDNN: python -m pip install nvidia-cudnn-cu13")
    shims = tmp_path_factory.mktemp("shims")
    for name, text in SHIMS.items():
        (shims / name).write_text(text)
    lines = [f'Function<decltype({name})>::show("{name}");' for name in [*SIGNATURES, *cudnn_library._OTHERS]]
    lines += [f'std::printf("{name} %d\\n", (int){name});' for name in CONSTANTS]
    program = compile_cpp(PROGRAM.replace("LINES", "\n    ".join(lines)), f"-I{shims}", f"-I{place}")
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split(" ", 1) for line in said)


CONSTANTS = [name for name in vars(cudnn_library) if name.startswith("CUDNN_")]
LETTERS = {None: "v", c_int: "i", c_size_t: "z", c_void_p: "p", c_char_p: "p"}


def letters(result, arguments):
    return "".join(LETTERS.get(kind, "p" if hasattr(kind, "contents") else "?") for kind in (result, *arguments))


def test_every_function_is_declared_with_the_types_of_the_headers(from_headers):
    ours = {name: letters(c_int, arguments) for name, arguments in SIGNATURES.items()}
    ours |= {name: letters(*declared) for name, declared in cudnn_library._OTHERS.items()}
    assert ours == {name: from_headers[name] for name in ours}


def test_every_number_is_that_of_the_headers(from_headers):
    assert len(CONSTANTS) == 19
    assert {name: str(getattr(cudnn_library, name)) for name in CONSTANTS} == {
        name: from_headers[name] for name in CONSTANTS
    }


@pytest.mark.parametrize("direction", cudnn_library.DIRECTIONS)
def test_a_performance_is_laid_out_as_in_the_headers(from_headers, direction):
    size, *places, number, status, math_type = map(int, from_headers[direction].split())
    assert ctypes.sizeof(Performance) == size
    assert [getattr(Performance, field[0]).offset for field in Performance._fields_] == places
    assert number == status == math_type == ctypes.sizeof(c_int)

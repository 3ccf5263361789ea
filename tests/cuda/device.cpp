// A CUDA device for a build of PyTorch that has none: its tensors are on cuda:0 and lie in the processor's memory.
//
// Whatever has a kernel of its own for CUDA comes to `on_processor`, which shows the CPU's kernel the same memory as
// CPU tensors. What PyTorch composes of other operations, its autograd and its autocast see tensors of CUDA. Tensors
// of both devices do not mix, but where CUDA takes them. Random numbers come from a generator of the device's own.
// What makes a program wait for a GPU is counted by name.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ops/_fused_sdp_choice_ops.h>
#include <ATen/ops/copy_ops.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <set>

using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::DispatchKeySet;
using c10::IValue;
using c10::Storage;
using c10::StorageImpl;
using c10::Stream;

namespace {

const Device kGpu(DeviceType::CUDA, 0);
std::recursive_mutex lock; // the backward pass has a thread of its own
std::map<std::string, int64_t> waits;
std::set<const void*> pinned;
int64_t memory_left = -1; // in bytes; -1 for no bound

void waited(const std::string& why) {
  std::lock_guard<std::recursive_mutex> guard(lock);
  ++waits[why];
}

at::Generator& generator() {
  static at::Generator own = at::detail::createCPUGenerator(0);
  return own;
}

// Runs the CPU's kernels on the device's random numbers.
struct OwnNumbers {
  at::Generator cpu = at::detail::getDefaultCPUGenerator();
  Tensor before = cpu.get_state();
  OwnNumbers() { cpu.set_state(generator().get_state()); }
  ~OwnNumbers() {
    generator().set_state(cpu.get_state());
    cpu.set_state(before);
  }
};

// A tensor over some memory with the place, sizes and strides of another.
Tensor over(const Storage& storage, DispatchKeySet keys, const Tensor& like) {
  Tensor made =
      at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, Storage(storage), keys, like.dtype());
  auto* impl = made.unsafeGetTensorImpl();
  impl->set_storage_offset(like.storage_offset());
  impl->set_sizes_and_strides(like.sizes(), like.strides());
  return made;
}

// The memory of a GPU's tensor as the CPU's kernels take it; may grow, as those of `out=` do.
Tensor shown(const Tensor& gpu) {
  auto& whole = gpu.storage();
  Storage same(c10::make_intrusive<StorageImpl>(
      StorageImpl::use_byte_size_t(), whole.nbytes(),
      c10::DataPtr(const_cast<void*>(whole.data()), Device(DeviceType::CPU)), c10::GetCPUAllocator(), true));
  Tensor made = over(same, DispatchKeySet(c10::DispatchKey::CPU), gpu);
  if (gpu.unsafeGetTensorImpl()->is_wrapped_number()) made.unsafeGetTensorImpl()->set_wrapped_number(true);
  return made;
}

// The CPU's memory as the GPU's.
c10::DataPtr on_gpu(const Storage& cpu) {
  auto* kept = new Storage(cpu);
  return c10::DataPtr(
      const_cast<void*>(cpu.data()), kept, [](void* context) { delete static_cast<Storage*>(context); }, kGpu);
}

Tensor new_on_gpu(const Tensor& cpu) {
  TORCH_CHECK_WITH(
      OutOfMemoryError, memory_left < 0 || static_cast<int64_t>(cpu.storage().nbytes()) <= memory_left,
      "CUDA out of memory. Tried to allocate ", cpu.storage().nbytes(), " bytes.");
  Storage storage(c10::make_intrusive<StorageImpl>(
      StorageImpl::use_byte_size_t(), cpu.storage().nbytes(), on_gpu(cpu.storage()), nullptr, false));
  Tensor made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), DispatchKeySet(c10::DispatchKey::CUDA), cpu.dtype());
  made.unsafeGetTensorImpl()->set_storage_offset(cpu.storage_offset());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides());
  return made;
}

struct Pair {
  Tensor gpu, cpu;
  const StorageImpl* storage;
  const void* data;
};

// An operation's arguments, shown to the CPU's kernel.
struct Call {
  std::vector<Pair> pairs;
  bool any_cpu = false;

  Tensor show(const Tensor& given) {
    if (!given.defined() || !given.is_cuda()) {
      any_cpu |= given.defined() && given.dim() > 0;
      return given;
    }
    for (auto& pair : pairs)
      if (pair.gpu.is_same(given)) return pair.cpu;
    Tensor cpu = shown(given);
    pairs.push_back({given, cpu, cpu.storage().unsafeGetStorageImpl(), cpu.storage().data()});
    return cpu;
  }

  IValue show(const IValue& given) {
    if (given.isTensor()) return show(given.toTensor());
    if (given.isDevice()) return given.toDevice().is_cuda() ? IValue(Device(DeviceType::CPU)) : given;
    if (given.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& one : given.toTensorVector()) list.push_back(show(one));
      return list;
    }
    if (given.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor>& one : given.toOptionalTensorVector())
        list.push_back(one ? std::optional<Tensor>(show(*one)) : one);
      return list;
    }
    return given;
  }

  // What the kernel has resized is resized on the GPU.
  void take_over() {
    for (auto& [gpu, cpu, storage, data] : pairs) {
      auto* impl = gpu.unsafeGetTensorImpl();
      if (cpu.storage().data() != data) {
        auto* whole = impl->unsafe_storage().unsafeGetStorageImpl();
        whole->set_data_ptr(on_gpu(cpu.storage()));
        whole->set_nbytes(cpu.storage().nbytes());
      }
      if (cpu.sizes() != gpu.sizes() || cpu.strides() != gpu.strides())
        impl->set_sizes_and_strides(cpu.sizes(), cpu.strides());
    }
  }

  Tensor given_back(const Tensor& cpu) {
    if (!cpu.defined()) return cpu;
    for (auto& pair : pairs) {
      if (pair.cpu.is_same(cpu)) return pair.gpu;
      if (cpu.storage().unsafeGetStorageImpl() == pair.storage)
        return over(pair.gpu.storage(), pair.gpu.key_set(), cpu);
    }
    return cpu.device().is_cpu() ? new_on_gpu(cpu) : cpu;
  }

  IValue given_back(const IValue& made) {
    if (made.isTensor()) return given_back(made.toTensor());
    if (made.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& one : made.toTensorVector()) list.push_back(given_back(one));
      return list;
    }
    return made;
  }
};

bool is_mask(const IValue& index) {
  return index.isTensor() && (index.toTensor().scalar_type() == at::kBool || index.toTensor().scalar_type() == at::kByte);
}

// Counts what an operation's CUDA kernel waits for: a size that depends on data, or a number that the program reads.
void count_waits(const std::string& name, const std::vector<IValue>& given) {
  static const std::set<std::string> reading = {
      "_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique", "_unique2", "unique_dim",
      "unique_consecutive", "unique_dim_consecutive", "bincount"};
  if (reading.count(name)) return waited(name);
  if (name == "repeat_interleave" && !given.back().isInt()) return waited(name);
  // Of `index` itself PyTorch finds the places before, by `nonzero` and copies that are counted as such.
  if (name != "_index_put_impl_") return;
  bool by_mask = false, all_masks = true;
  for (const IValue& one : given[1].toListRef()) {
    if (one.isNone() || !one.toTensor().defined()) continue;
    by_mask |= is_mask(one);
    all_masks &= is_mask(one);
    if (one.toTensor().device().is_cpu() && one.toTensor().dim() > 0) waited("index from the CPU");
  }
  // As in ATen: one number under a mask is filled in, whose places nobody needs to know.
  bool filled = all_masks && given[2].toTensor().numel() == 1 && !given[3].toBool();
  if (by_mask && !filled) waited("index by a mask");
}

void on_processor(const c10::OperatorHandle& op, DispatchKeySet, torch::jit::Stack* stack) {
  const std::string name = op.schema().name().substr(op.schema().name().find("::") + 2);
  const size_t n = op.schema().arguments().size();
  std::vector<IValue> given(stack->end() - n, stack->end());
  Call call;
  for (size_t i = 0; i < n; ++i) (*stack)[stack->size() - n + i] = call.show(given[i]);
  count_waits(name, given);
  const bool takes_index = name.rfind("index", 0) == 0 || name == "_index_put_impl_";
  TORCH_CHECK(
      !call.any_cpu || call.pairs.empty() || (takes_index && given[0].isTensor() && given[0].toTensor().is_cuda()),
      "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (", name, ")");
  {
    at::AutoDispatchBelowADInplaceOrView below;
    std::optional<OwnNumbers> numbers;
    std::unique_lock<std::recursive_mutex> guard(lock, std::defer_lock);
    if (op.hasTag(at::Tag::nondeterministic_seeded)) {
      guard.lock();
      numbers.emplace();
    }
    op.redispatchBoxed(DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  call.take_over();
  const bool reads = name == "_local_scalar_dense" || name == "equal";
  for (size_t i = 0, m = op.schema().returns().size(); i < m && !reads; ++i) {
    IValue& made = (*stack)[stack->size() - m + i];
    made = call.given_back(made);
  }
}

Tensor empty(
    c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<Device>,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return new_on_gpu(at::detail::empty_cpu(
      C10_AS_INTARRAYREF_SLOW(size), dtype.value_or(at::get_default_dtype_as_scalartype()), false, format));
}

Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<Device>, std::optional<bool>) {
  return new_on_gpu(at::detail::empty_strided_cpu(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      dtype.value_or(at::get_default_dtype_as_scalartype()), false));
}

Tensor& copy_(Tensor& self, const Tensor& source, bool non_blocking) {
  if (self.device() != source.device() && self.numel()) {
    // Without a wait only from or to pinned memory; other memory goes through a buffer of the driver's.
    const Tensor& host = self.is_cuda() ? source : self;
    if (!(non_blocking && pinned.count(host.storage().data())))
      waited(self.is_cuda() ? "copy to the GPU" : "copy from the GPU");
  }
  Tensor to = self.is_cuda() ? shown(self) : self;
  at::AutoDispatchBelowADInplaceOrView below;
  at::_ops::copy_::call(to, source.is_cuda() ? shown(source) : source, false);
  return self;
}

// Attention by plain products, whose steps go through the dispatcher.
int64_t attention(
    const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, double, bool, std::optional<double>,
    bool) {
  return 0;
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_processor>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("copy_", copy_);
  m.impl("_fused_sdp_choice", attention);
}

std::string told_waits() {
  std::lock_guard<std::recursive_mutex> guard(lock);
  std::string all;
  for (auto& [why, count] : waits) all += why + "=" + std::to_string(count) + ";";
  waits.clear();
  return all;
}

TORCH_LIBRARY(stand_in, m) {
  m.def("take_waits() -> str", told_waits);
  m.def("wait(str why) -> ()", [](const std::string& why) { waited(why); });
  m.def("bound_memory(int bytes) -> ()", [](int64_t bytes) { memory_left = bytes; });
  m.def("seed(int seed) -> ()", [](int64_t seed) { generator().set_current_seed(static_cast<uint64_t>(seed)); });
  m.def("random_state() -> Tensor", [] { return generator().get_state(); });
  m.def("set_random_state(Tensor state) -> ()", [](const Tensor& state) { generator().set_state(state); });
}

// One device with one stream, on which nothing is ever unfinished.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device) const override { return kGpu; }
  Device getDevice() const override { return kGpu; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return Stream(Stream::DEFAULT, kGpu); }
  Stream getDefaultStream(Device) const override { return Stream(Stream::DEFAULT, kGpu); }
  Stream exchangeStream(Stream stream) const override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

struct Pinned final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* data = c10::GetCPUAllocator()->raw_allocate(n);
    std::lock_guard<std::recursive_mutex> guard(lock);
    pinned.insert(data);
    return c10::DataPtr(data, data, &release, Device(DeviceType::CPU));
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
  static void release(void* data) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    pinned.erase(data);
    c10::GetCPUAllocator()->raw_deallocate(data);
  }
};

} // namespace

// The registry of hooks looks for this name.
struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return 1; }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override { return generator(); }
  bool isPinnedPtr(const void* data) const override { return pinned.count(data) != 0; }
  at::Allocator* getPinnedMemoryAllocator() const override {
    static Pinned allocator;
    return &allocator;
  }
};

namespace at {
using ::CUDAHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
} // namespace at

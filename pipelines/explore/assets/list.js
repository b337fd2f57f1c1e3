// The form that chooses columns: the names of all checked boxes become one parameter.
const form = document.getElementById("columns");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const names = [...form.querySelectorAll("input:checked")].map((box) => box.value);
  const address = new URL(location.href);
  address.searchParams.set("columns", names.join("\n"));
  location.assign(address);
});

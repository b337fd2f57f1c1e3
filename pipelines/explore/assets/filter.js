// The form that adds a term: the chosen column becomes the name of the value's field.
const column = document.getElementById("filter-column");
const value = document.getElementById("filter-value");
column.addEventListener("change", () => {
  value.name = column.value;
  value.disabled = !column.value;
  value.focus();
});
